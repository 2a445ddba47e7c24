"""Reports over HTTP for programs: one request a study, JSON back, nothing kept."""
