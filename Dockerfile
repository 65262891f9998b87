# Airflow with what this bundle needs: the slim image and just the locked packages, each checked against its hash.
# DAGs, engine, SQL and plugins are mounted (docker-compose.yaml) or come as a Git bundle; only packages are baked in.
# They are compiled here: else each pod of a KubernetesExecutor compiles what its task imports, for seconds.
# By exact version, which its publisher could still push again. To pin what you have looked at, by its digest:
#   docker buildx imagetools inspect apache/airflow:slim-3.3.2-python3.12   prints it (Digest: sha256:...)
#   FROM apache/airflow:slim-3.3.2-python3.12@sha256:...                    the version stays for people; the digest decides
FROM apache/airflow:slim-3.3.2-python3.12
COPY --chown=airflow:0 requirements.txt requirements-image.txt constraints-image.txt /tmp/requirements/
RUN uv pip install --no-cache --compile-bytecode -r /tmp/requirements/requirements-image.txt -c /tmp/requirements/constraints-image.txt
