# One image for every service; the command says which:
#
#     the web (the default)     gunicorn -c python:web.gunicorn_config 'web:create_app()'
#     a runner                  jobrunner start
#     migrations                jobrunner migrate
#
# All of them want DATABASE_URL. docker-compose.yml shows them together.

FROM python:3.13-slim AS build

WORKDIR /src
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY jobrunner jobrunner
COPY web web
COPY sql sql
# An environment without pip in it: nothing is installed later.
RUN python -m venv --without-pip /opt/jobrunner \
    && pip --python /opt/jobrunner/bin/python install --no-cache-dir --disable-pip-version-check .

FROM python:3.13-slim

LABEL org.opencontainers.image.title="jobrunner" \
    org.opencontainers.image.description="Asynchronous ML inference with PostgreSQL as the only broker" \
    org.opencontainers.image.licenses="MIT"

# Numbers, so that an orchestrator can see that it is not root and files can be made for it.
RUN groupadd --gid 10001 jobrunner \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin jobrunner

COPY --from=build /opt/jobrunner /opt/jobrunner
COPY deploy/make_secrets.py deploy/check_runner.py /opt/jobrunner/share/

# The root file system may be read-only: what is written goes to /tmp.
ENV PATH="/opt/jobrunner/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    JOBRUNNER_HOME=/tmp/jobrunner \
    HOST=0.0.0.0

WORKDIR /opt/jobrunner
USER 10001:10001
EXPOSE 8000

# No HEALTHCHECK: what healthy means depends on the service, see docker-compose.yml.
CMD ["gunicorn", "-c", "python:web.gunicorn_config", "web:create_app()"]
