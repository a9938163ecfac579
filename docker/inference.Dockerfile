# The sidecar.  docker build -f docker/inference.Dockerfile -t weightroom-sidecar .
FROM python:3.11-slim
RUN pip install --no-cache-dir uv && useradd --create-home --uid 1000 weightroom
WORKDIR /srv/weightroom
COPY . .
RUN uv pip install --system --no-cache ".[inference]"
USER weightroom
ENV WEIGHTROOM_CHECKOUTS=/home/weightroom/checkouts WEIGHTROOM_SIDECAR_HOST=0.0.0.0
VOLUME /home/weightroom/checkouts
EXPOSE 8001
CMD ["weightroom-sidecar", "serve"]
