# The viewer with the demo video, or any other subcommand, on the CPU:
#   docker build -t deepfovea .
#   docker run --rm -p 127.0.0.1:8765:8765 deepfovea          then open http://localhost:8765
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" deepfovea demo
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" deepfovea reconstruct video.mp4 \
#       -o out.mp4 --simulate
# --user: what is written into your folder belongs to you. Another index for PyTorch:
#   docker build --build-arg TORCH_INDEX=https://pypi.org/simple -t deepfovea .
FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# The versions are those that pyproject.toml allows, the newest when the image is built.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir torch torchvision --index-url "$TORCH_INDEX"
WORKDIR /opt/deepfovea
COPY pyproject.toml README.md LICENSE ./
COPY src src
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[demo,openvino,viewer]'
# Any user may run it: the folder of work and the home, where engines keep what they compile, are
# open to all.
RUN mkdir --mode=1777 /work
ENV HOME=/tmp
USER 1000:1000
WORKDIR /work
EXPOSE 8765
ENTRYPOINT ["deepfovea"]
CMD ["view", "--host", "0.0.0.0", "--no-browser"]
