"""The rate-distortion plot."""

from __future__ import annotations

from pathlib import Path

Curves = dict[str, list[tuple[float, float]]]


def plot(curves: Curves, png: float, path: Path) -> None:
    """Plot PSNR in dB against bytes for every format, and write the plot to ``path``. ``png``: mean
    bytes of lossless PNG files, for the axis label. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), dpi=110)
    for name, points in curves.items():
        size, quality = zip(*sorted(points), strict=True)
        wide = 2.4 if name == "mlx-starflow" else 1.2
        axes.plot(size, quality, marker="o", markersize=3, linewidth=wide, label=name)
    axes.set(
        xscale="log",
        xlabel=f"bytes per picture of 128x128, headers included (PNG, lossless: {png:.0f})",
        ylabel="PSNR, dB",
        ylim=(22, 31),
        xlim=(90, 3000),
    )
    ticks = (100, 200, 300, 500, 1000, 2000, 3000)
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
