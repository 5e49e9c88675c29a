# The gateway's image: `serve` by default; `bridge`, `dev` and the other commands as arguments.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/parley
# Dependencies before the code: their layer is built again only when the lock changes.
COPY config/requirements.lock /tmp/
RUN /opt/parley/bin/pip install --require-hashes --only-binary :all: --no-compile -r /tmp/requirements.lock \
 && /opt/parley/bin/pip uninstall --yes pip
# The package is plain Python: put in place as it is, it needs no build tool.
COPY gateway /tmp/gateway
RUN mv /tmp/gateway "$(/opt/parley/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/" \
 && printf '#!/opt/parley/bin/python\nimport sys\nfrom gateway.cli import main\nsys.exit(main())\n' > /opt/parley/bin/gateway \
 && chmod 755 /opt/parley/bin/gateway \
 && /opt/parley/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/parley/lib

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="Parley Gateway" org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/parley/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin parley \
 && install -d -o parley -g parley -m 0700 /var/lib/parley
COPY --from=build /opt/parley /opt/parley
USER 10001
WORKDIR /var/lib/parley
VOLUME /var/lib/parley
# Pages, REST and signaling; media; health and metrics.
EXPOSE 8080/tcp 3478/udp 9090/tcp
# A container's own loopback is nobody's: listen everywhere inside, and publish ports as needed.
ENV GATEWAY_SERVER__HOST=0.0.0.0 GATEWAY_SERVER__PRIVATE_HOST=0.0.0.0 GATEWAY_PAY__HOST=0.0.0.0
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD python -c "import os, urllib.request as u; u.urlopen('http://127.0.0.1:%s/livez' % os.environ.get('GATEWAY_SERVER__PRIVATE_PORT', 9090), timeout=2)"
ENTRYPOINT ["gateway"]
CMD ["serve"]
