"""At the end of a run: gathers the results of all images into one table and one picture.

The run calls collect() once, when all images are done (COLLECT in config.py).
"""

import csv
from pathlib import Path
from statistics import mean

from PIL import Image, ImageDraw, ImageFont

BY_HAND = Path(__file__).resolve().parent / "data" / "images" / "by_hand.csv"
COLUMNS, TILE, CAPTION, MARGIN = 4, 256, 26, 30
CHART_HEIGHT = 190
ORANGE, BLUE, BLACK, GREY = "#ff8c00", "#3b6ea5", "#222222", "#888888"


def collect(outputs_dir, output_dir):
    """Read all results, write the table, draw the picture."""
    folders = sorted(file.parent for file in outputs_dir.glob("results/*/nuclei.csv"))
    by_hand = {row["image"]: int(row["nuclei"]) for row in read_table(BY_HAND)}
    nuclei = {folder: read_table(folder / "nuclei.csv") for folder in folders}
    rows = [summarise(folder.name, found, by_hand) for folder, found in nuclei.items()]
    write_table(output_dir / "summary.csv", rows)
    areas = [int(nucleus["area"]) for found in nuclei.values() for nucleus in found]
    draw_summary(folders, rows, areas).save(output_dir / "summary.png", optimize=True)
    print(f"{len(rows)} images, {len(areas)} nuclei")


def summarise(name, found, by_hand):
    """The row of one image."""
    return {
        "image": name,
        "nuclei": len(found),
        "by_hand": by_hand.get(name, ""),
        "mean_area": round(mean(float(nucleus["area"]) for nucleus in found), 1) if found else "",
        "mean_intensity": round(mean(float(n["mean_intensity"]) for n in found), 1) if found else "",
    }


def read_table(path):
    """The rows of a CSV file; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_table(path, rows):
    """Write rows as a CSV file."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def draw_summary(folders, rows, areas):
    """All outlined images with their counts, and below them the two charts."""
    lines = -(-len(folders) // COLUMNS)  # rounded up
    width = COLUMNS * (TILE + MARGIN) + MARGIN
    sheet_bottom = MARGIN + lines * (TILE + CAPTION + MARGIN // 3)
    picture = Image.new("RGB", (width, sheet_bottom + CHART_HEIGHT + 3 * MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    for place, (folder, row) in enumerate(zip(folders, rows, strict=True)):
        x = MARGIN + place % COLUMNS * (TILE + MARGIN)
        y = MARGIN + place // COLUMNS * (TILE + CAPTION + MARGIN // 3)
        tile = Image.open(folder / "outline.png")
        tile.thumbnail((TILE, TILE))
        picture.paste(tile, (x, y + CAPTION))
        hand = f" (by hand {row['by_hand']})" if row["by_hand"] != "" else ""
        draw.text((x, y), f"{row['image']}: {row['nuclei']} nuclei{hand}", BLACK, font(16))

    half = (width - 3 * MARGIN) // 2
    top = sheet_bottom + MARGIN
    names, counts = [row["image"] for row in rows], [row["nuclei"] for row in rows]
    draw_bars(draw, (MARGIN, top, half), "nuclei in each image", names, counts, ORANGE)
    largest = max(areas, default=0)
    step = 50 * (1 + largest // 600)  # what a bar spans, so that there are twelve at most
    starts = range(0, largest + 1, step)
    counts = [sum(start <= area < start + step for area in areas) for start in starts]
    title = f"nuclei by area (pixels, in steps of {step})"
    draw_bars(draw, (2 * MARGIN + half, top, half), title, [str(start) for start in starts], counts, BLUE)
    return picture


def draw_bars(draw, place, title, names, values, colour):
    """A bar chart: each bar with its value above it and its name below."""
    left, top, width = place
    draw.text((left, top), title, BLACK, font(16))
    bottom, tallest = top + CHART_HEIGHT, max([*values, 1])
    step = width / len(values)
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        x = left + number * step
        y = bottom - (CHART_HEIGHT - 50) * value / tallest
        draw.rectangle((x + 2, y, x + step - 2, bottom), fill=colour)
        draw.text((x + step / 2, y - 2), str(value), BLACK, font(12), anchor="mb")
        draw.text((x + step / 2, bottom + 4), name, GREY, font(12), anchor="mt")


def font(size):
    """The font that comes with Pillow."""
    return ImageFont.load_default(size)
