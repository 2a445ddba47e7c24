# The API of a run, on the CPU: `pip wheel --no-deps -w dist .` makes what is installed here. See docs/hospital.md.
FROM python:3.12.12-slim-bookworm

# An index of CPU builds of PyTorch makes the image smaller by some gigabytes: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL=""
COPY dist/*.whl /wheels/
RUN PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL}" \
    pip install --no-cache-dir "$(echo /wheels/diffrgen-*.whl)[api,clinical]" \
    && rm -r /wheels \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin diffrgen

# At run time nothing is fetched; what is written goes to /tmp.
ENV HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HOME=/tmp/huggingface DIFFRGEN_CACHE=/tmp/diffrgen \
    MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

USER 10001
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
ENTRYPOINT ["python", "-m", "diffrgen.serve", "/run-folder", "--api", "--host", "0.0.0.0"]
