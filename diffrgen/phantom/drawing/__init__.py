"""The films: `render` draws a study layer by layer onto a `scene` that `chest` opens, and `film` exposes it."""
