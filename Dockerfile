# Built with the toolchain's own image, run with nothing but the binary and the system's certificate authorities.
FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release && cp target/release/tidegate /tidegate

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home --user-group tidegate
COPY --from=build /tidegate /usr/local/bin/tidegate
USER tidegate
EXPOSE 8080 9900
# Drains, then ends within `shutdown_timeout`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tidegate"]
CMD ["run", "/etc/tidegate/tidegate.toml"]
