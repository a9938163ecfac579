# The registry alone: no torch.  docker build -f docker/registry.Dockerfile -t weightroom-registry .
FROM python:3.11-slim
RUN pip install --no-cache-dir uv && useradd --create-home --uid 1000 weightroom
WORKDIR /srv/weightroom
COPY . .
RUN uv pip install --system --no-cache .
USER weightroom
ENV WEIGHTROOM_DATA=/home/weightroom/data WEIGHTROOM_HOST=0.0.0.0
VOLUME /home/weightroom/data
EXPOSE 8000
CMD ["weightroom", "serve", "--no-sidecar"]
