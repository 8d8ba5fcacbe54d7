"""Reading and writing of video files and folders of images, with their times and their sound.

Legend: H, W height and width in pixels as shown, that is, after the rotation that a file asks for.
Images are 8-bit sRGB-encoded RGB, or RGBA with straight alpha. Times are in seconds from the
first frame. Only this folder uses PyAV, and through it FFmpeg.
"""

from .container import ALPHA_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, checked_suffix, colorspace_of
from .folder import find_videos, is_video, list_images
from .reader import Frame, VideoReader, read_clip
from .rgb48 import read_rgb48
from .writer import VideoWriter
from .yuv import LUMA_SHARES, YUV420, to_yuv420

__all__ = [
    "ALPHA_SUFFIXES",
    "IMAGE_SUFFIXES",
    "LUMA_SHARES",
    "VIDEO_SUFFIXES",
    "YUV420",
    "Frame",
    "VideoReader",
    "VideoWriter",
    "checked_suffix",
    "colorspace_of",
    "find_videos",
    "is_video",
    "list_images",
    "read_clip",
    "read_rgb48",
    "to_yuv420",
]
