# Build: docker build -t muster .        Run: docker compose up -d
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p muster -p muster-agent

FROM debian:bookworm-slim
RUN useradd --system --home-dir /var/lib/muster --create-home muster
COPY --from=build /src/target/release/muster /src/target/release/muster-agent /usr/local/bin/
USER muster
VOLUME /var/lib/muster
EXPOSE 8883 8884 8443 8880
ENTRYPOINT ["muster"]
CMD ["serve", "--data", "/var/lib/muster"]
