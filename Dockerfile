# Both programs in one small image: built on Debian 12, run on the same release without compiler or headers.
FROM debian:bookworm-slim AS build

# The release's own versions, with its security updates.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils gcc libc6-dev libcjson-dev libhttp-parser-dev make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /source
COPY Makefile ./
COPY tests/tests.mk tests/
COPY include include
COPY src src
RUN make -j"$(nproc)" all \
    && make install DESTDIR=/out PREFIX=/usr/local \
    && strip /out/usr/local/bin/loadbalancer /out/usr/local/bin/demo-backend

FROM debian:bookworm-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libcjson1 libhttp-parser2.9 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 loadbalancer \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/loadbalancer --shell /usr/sbin/nologin loadbalancer \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/loadbalancer

COPY --from=build /out/usr/local/bin/ /usr/local/bin/
COPY config.json /etc/loadbalancer/config.json
# The file's mode comes along, and may be one for its owner alone. (--chmod would need BuildKit.)
RUN chmod 0644 /etc/loadbalancer/config.json

# The state (clients.json, its journal, tokens and lock) lives in the working directory: mount a volume there, as a folder.
WORKDIR /var/lib/loadbalancer
USER 10001:10001

EXPOSE 8080
STOPSIGNAL SIGTERM

# What the probe asks; whoever changes LISTEN or runs demo-backend changes these. Any answer but a 5xx is a sign of life.
ENV PROBE_PORT=8080 PROBE_PATH=/clients/list?limit=1
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["bash", "-c", "exec 3<>\"/dev/tcp/127.0.0.1/$PROBE_PORT\" && printf 'GET %s HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' \"$PROBE_PATH\" >&3 && read -r _ status _ <&3 && [[ $status == [234]?? ]]"]

ENTRYPOINT ["/usr/local/bin/loadbalancer"]
CMD ["-c", "/etc/loadbalancer/config.json"]
