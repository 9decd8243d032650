"""What a job does: writes an image as OME-Zarr, with smaller copies for viewers that zoom."""

import numpy
import zarr
from ome_zarr.io import parse_url
from ome_zarr.writer import write_image
from PIL import Image


def write(job, input_dir, output_dir):
    """One job: data/images/<Image>.png becomes data/zarr/<Image>/<Image>.zarr."""
    pixels = numpy.asarray(Image.open(input_dir / f"{job['Image']}.png").convert("L"))
    chunk = int(job["ChunkSize"])
    group = zarr.group(parse_url(output_dir / f"{job['Image']}.zarr", mode="w").store)
    write_image(pixels, group, axes="yx", storage_options={"chunks": (chunk, chunk)})
    print(f"{pixels.shape[0]} x {pixels.shape[1]} pixels in chunks of {chunk}")
