"""The work of one job: find the cell nuclei in one image and measure each of them."""

import csv

import numpy as np
from PIL import Image
from scipy import ndimage

ZOOM = 2  # the outline picture is this much larger than the image
ORANGE = (255, 140, 0)


def measure(job, input_dir, output_dir):
    """Count and measure the nuclei of one image: this is what a worker calls for each job."""
    name = job["Image"]
    image = np.array(Image.open(input_dir / f"{name}.png").convert("L"), dtype=float)

    bright = find_bright(image, job["NucleusWidth"])
    nuclei = split_touching(bright, job["NucleusWidth"])
    nuclei = drop_specks(nuclei, job["SmallestArea"])

    write_table(output_dir / "nuclei.csv", image, nuclei)
    draw_outlines(image, nuclei).save(output_dir / "outline.png")
    print(f"{name}: {nuclei.max()} nuclei")


def find_bright(image, width):
    """True where there is a nucleus: brighter than the background, and than its own neighbourhood."""
    smooth = ndimage.gaussian_filter(image, 1)
    if smooth.max() < 2 * np.percentile(smooth, 10):
        return np.zeros(image.shape, dtype=bool)  # an empty field: nothing stands out
    # On a logarithmic scale, a few very bright (dying or dividing) cells do not hide the dim ones
    logarithm = np.log(smooth + 1)
    bright = logarithm > otsu(logarithm)
    # The haze around a very bright cell, or uneven light, is no brighter than its surroundings
    bright &= smooth > ndimage.gaussian_filter(smooth, width / 2)
    bright = ndimage.binary_opening(bright, iterations=2)
    return ndimage.binary_fill_holes(bright)


def otsu(values):
    """Otsu's threshold: splits the values into the two groups that differ most from each other."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sum_below = np.cumsum(counts * centres)
    sum_above = sum_below[-1] - sum_below
    mean_below = sum_below / np.maximum(below, 1)
    mean_above = sum_above / np.maximum(above, 1)
    return centres[np.argmax(below * above * (mean_below - mean_above) ** 2)]


def split_touching(bright, width):
    """Number the nuclei 1, 2, 3, ...; 0 is background. Nuclei that touch are cut at their waist."""
    # How deep a pixel lies inside: each nucleus is a hill, with one top
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(bright), 1.5)
    highest_near = ndimage.maximum_filter(depth, size=width // 2 + 1)
    tops = bright & (depth == highest_near)
    nuclei, _ = ndimage.label(tops, structure=np.ones((3, 3)))
    # From the tops down, each nucleus grows until it meets the next one
    for level in np.arange(depth.max(), -0.5, -0.5):
        grown = nuclei
        while grown is not None:
            nuclei = grown
            free = bright & (depth >= level) & (nuclei == 0)
            grown = np.where(free, ndimage.maximum_filter(nuclei, size=3), nuclei)
            if np.array_equal(grown, nuclei):
                grown = None
    return nuclei


def drop_specks(nuclei, smallest_area):
    """Remove what is too small to be a nucleus, and number the rest without gaps."""
    areas = np.bincount(nuclei.ravel())
    keep = areas >= smallest_area
    keep[0] = False  # the background
    return np.where(keep, np.cumsum(keep), 0)[nuclei]


def write_table(path, image, nuclei):
    """One row a nucleus."""
    labels = np.arange(1, nuclei.max() + 1)
    areas = np.bincount(nuclei.ravel())[1:]
    means = ndimage.mean(image, nuclei, labels)
    centres = ndimage.center_of_mass(nuclei > 0, nuclei, labels)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["label", "area", "x", "y", "mean_intensity"])
        for label, area, (y, x), mean in zip(labels, areas, centres, means, strict=True):
            table.writerow([label, area, f"{x:.1f}", f"{y:.1f}", f"{mean:.1f}"])


def draw_outlines(image, nuclei):
    """The image, enlarged and brightened, with a line around each nucleus."""
    grey = 255 * (image / max(image.max(), 1)) ** 0.4
    large = np.kron(nuclei, np.ones((ZOOM, ZOOM), dtype=int))
    edge = (ndimage.minimum_filter(large, 3) != large) & (large > 0)
    picture = np.array(Image.fromarray(grey.astype(np.uint8)).resize(large.shape[::-1]).convert("RGB"))
    picture[edge] = ORANGE
    return Image.fromarray(picture)
