# SettMQ in a container: the static binary and nothing else, as a user without rights. See docs/deploy.md.
#
#	docker build -t settmq .
#	docker build -t settmq:shell --target shell .     with a shell, for healthchecks that are shell commands

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=""
RUN VERSION="$VERSION" ci/image-root /image && mkdir -m 0700 /data

FROM busybox:1.37-musl AS shell
COPY --from=build /image/ /
COPY --from=build --chown=65532:65532 /data/ /var/lib/settmq/
ENV SETTMQ_DATA_DIR=/var/lib/settmq SETTMQ_LISTENERS=:5672 SETTMQ_MANAGEMENT_LISTEN=:15672 SETTMQ_METRICS_LISTEN=:15692
USER 65532:65532
VOLUME /var/lib/settmq
EXPOSE 5672 15672 15692
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s CMD ["/usr/bin/settmq", "health"]
ENTRYPOINT ["/usr/bin/settmq"]

FROM scratch
COPY --from=build /image/ /
COPY --from=build --chown=65532:65532 /data/ /var/lib/settmq/
ENV PATH=/usr/bin SETTMQ_DATA_DIR=/var/lib/settmq SETTMQ_LISTENERS=:5672 SETTMQ_MANAGEMENT_LISTEN=:15672 SETTMQ_METRICS_LISTEN=:15692
USER 65532:65532
VOLUME /var/lib/settmq
EXPOSE 5672 15672 15692
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s CMD ["/usr/bin/settmq", "health"]
ENTRYPOINT ["/usr/bin/settmq"]
