"""Draw ``phantoms.png``: eight phantoms, the lower four with a finding and its box."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from wetread.datasets.phantoms import Finding, PhantomSpec, Pose, render

CELL, LABEL = 260, 20

SHEET = [
    ("northgate, man of 50, PA", PhantomSpec(15, 50, "M")),
    ("riverside, woman of 70, PA", PhantomSpec(9, 70, "F", source="riverside", pose=Pose(rotation_deg=-3))),
    ("oakchildren, girl of 2, AP", PhantomSpec(31, 2, "F", "AP", source="oakchildren", kvp=66)),
    (
        "harbour, man of 66, AP, leaning",
        PhantomSpec(10, 66, "M", "AP", source="harbour", pose=Pose(6, 5, -3, 0.5)),
    ),
    (
        "consolidation, severity 0.7",
        PhantomSpec(6, 60, "F", findings=(Finding("consolidation", 0.7, "right", (0.5, 0.65)),)),
    ),
    (
        "nodule, severity 0.7",
        PhantomSpec(12, 40, "M", source="hillside", findings=(Finding("nodule", 0.7, "left", (0.5, 0.4)),)),
    ),
    (
        "effusion, severity 0.6",
        PhantomSpec(22, 58, "M", source="riverside", findings=(Finding("effusion", 0.6, "left"),)),
    ),
    ("cardiomegaly, severity 0.5", PhantomSpec(41, 75, "F", findings=(Finding("cardiomegaly", 0.5),))),
]


def main() -> None:
    font = ImageFont.load_default(size=12)
    sheet = Image.new("L", (4 * CELL, 2 * (CELL + LABEL)), 255)
    draw = ImageDraw.Draw(sheet)
    for index, (title, spec) in enumerate(SHEET):
        x, y = index % 4 * CELL, index // 4 * (CELL + LABEL)
        phantom = render(spec)
        film = Image.fromarray((phantom.image * 255).astype("uint8")).resize(
            (CELL - 4, CELL - 4), Image.Resampling.LANCZOS
        )
        sheet.paste(film, (x + 2, y + 2))
        scale = (CELL - 4) / spec.size_px
        for truth in phantom.findings:
            box = truth.box
            left, top = x + 2 + box.x * scale, y + 2 + box.y * scale
            draw.rectangle((left, top, left + box.width * scale, top + box.height * scale), outline=255)
        draw.text((x + 4, y + CELL), title, fill=0, font=font)
    sheet.save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
