"""Slow restatements, from the formulas: NumPy in float64, one position and one pixel at a time.

Scorers of oracles are functions of one batch, images (N, H, W, C) -> (N, K), in NumPy or not.
"""

from math import ceil, erf, floor, sqrt

import numpy as np


def scored(f, image):
    """Scores (K,) of one image."""
    return np.asarray(f(np.asarray(image)[None]), np.float64)[0]


def slow_starts(size, patch, stride, border="clip", margin=0):
    """Starts along one axis, found by walking."""
    if margin:
        return [cell - margin for cell in range(0, size, stride)]
    starts = [0]
    while starts[-1] + patch < size:
        starts.append(starts[-1] + stride)
    if border == "valid":
        return [start for start in starts if start + patch <= size]
    if border == "shift":
        return [min(start, size - patch) for start in starts]
    return [start for start in starts if start < size]


def slow_paste(image, start, patch, fill):
    """The image with a patch at a start, pixel by pixel; fill (row, col, channel) -> value."""
    occluded = np.array(image, np.float64)
    for row in range(start[0], start[0] + patch[0]):
        for col in range(start[1], start[1] + patch[1]):
            if 0 <= row < image.shape[0] and 0 <= col < image.shape[1]:
                for channel in range(image.shape[2]):
                    occluded[row, col, channel] = fill(row, col, channel)
    return occluded


def slow_scores(f, image, patch, stride, fill=0.0, border="clip", margin=(0, 0)):
    """Scores (rows, cols, K) of every position of a grid; `fill` is a number or a function."""
    value = fill if callable(fill) else lambda row, col, channel: fill
    rows, cols = (
        slow_starts(image.shape[axis], patch[axis], stride[axis], border, margin[axis])
        for axis in (0, 1)
    )
    return np.array(
        [[scored(f, slow_paste(image, (row, col), patch, value)) for col in cols] for row in rows]
    )


def slow_spread(values, starts, patch, image_shape, reduce="mean", weights=None):
    """Values (rows, cols) of positions as pixels: mean or sum over the patches on each."""
    weights = np.ones(patch) if weights is None else weights
    spread = np.full(image_shape, np.nan)
    for row, col in np.ndindex(image_shape):
        total = weight = 0.0
        for i, top in enumerate(starts[0]):
            for j, left in enumerate(starts[1]):
                if top <= row < top + patch[0] and left <= col < left + patch[1]:
                    share = float(weights[row - top, col - left])
                    if share and not np.isnan(values[i, j]):
                        total += float(values[i, j]) * share
                        weight += share
        if weight:
            spread[row, col] = total / weight if reduce == "mean" else total
    return spread


def slow_seed_loop(f, image, size, target):
    """The tutorial's loop: heatmap, class_pixels and counters; cells cut off at the far edges."""
    height, width, _ = image.shape
    pad = 2 * size
    heatmap, class_pixels, counters = np.zeros((height, width)), np.zeros((height, width), int), {}
    for y in range(0, height, size):
        for x in range(0, width, size):
            padded = np.pad(image, [(pad, pad), (pad, pad), (0, 0)])
            padded[y : y + 5 * size, x : x + 5 * size] = 0.5
            padded[pad + y : pad + y + size, pad + x : pad + x + size] = 0.5
            out = scored(f, padded[pad : pad + height, pad : pad + width])
            heatmap[y : y + size, x : x + size] = out[target]
            class_pixels[y : y + size, x : x + size] = np.argmax(out)
            counters[int(np.argmax(out))] = counters.get(int(np.argmax(out)), 0) + 1
    return heatmap, class_pixels, counters


def slow_captum(f, image, window, stride, target, baseline=0.0):
    """Drops, averaged over the windows on a pixel; the last window is cut off."""
    height, width, _ = image.shape
    clean = scored(f, image)[target]
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for j in range(ceil((height - window[0]) / stride[0]) + 1):
        for i in range(ceil((width - window[1]) / stride[1]) + 1):
            on = np.zeros((height, width), bool)
            top, left = j * stride[0], i * stride[1]
            on[top : top + window[0], left : left + window[1]] = True
            occluded = np.where(on[..., None], baseline, image)
            total[on] += clean - scored(f, occluded)[target]
            count[on] += 1
    return total / count


def slow_xplique(f, image, patch, stride, target, value=0.0):
    """Drops, summed over the whole patches on a pixel; 0 where there is none."""
    height, width, _ = image.shape
    clean, total = scored(f, image)[target], np.zeros((height, width))
    for j in range(floor((height - patch[0]) / stride[0]) + 1):
        for i in range(floor((width - patch[1]) / stride[1]) + 1):
            top, left = j * stride[0], i * stride[1]
            occluded = np.array(image, np.float64)
            occluded[top : top + patch[0], left : left + patch[1]] = value
            drop = clean - scored(f, occluded)[target]
            total[top : top + patch[0], left : left + patch[1]] += drop
    return total


def slow_pair(f, image, size, target, value=0.0):
    """Drops of all whole windows, one at every pixel, summed."""
    return slow_xplique(f, image, (size, size), (1, 1), target, value)


def slow_tf_explain(f, image, size, target, value):
    """1 − score per tile, the map of tiles resized bilinearly: half-pixel centres, clamped."""
    height, width, _ = image.shape
    coarse = np.zeros((ceil(height / size), ceil(width / size)))
    for j, i in np.ndindex(coarse.shape):
        occluded = np.array(image, np.float64)
        occluded[j * size : (j + 1) * size, i * size : (i + 1) * size] = value
        coarse[j, i] = 1 - scored(f, occluded)[target]
    return slow_stretch(coarse, (height, width))


def slow_stretch(values, shape):
    """Each pixel between its four neighbours; centres at half pixels, clamped at the edge."""
    middles = [(np.arange(n) + 0.5) * size / n for n, size in zip(values.shape, shape, strict=True)]
    return slow_bilinear(values, middles, shape)


def slow_bilinear(values, middles, shape):
    """Each pixel's middle between four positions' (rows, cols); the outermost continue."""
    resized = np.zeros(shape)
    for pixel in np.ndindex(shape):
        sides = []
        for at, where in zip(pixel, middles, strict=True):
            place, shares = np.clip(at + 0.5, where[0], where[-1]), []
            low = max(k for k, middle in enumerate(where) if middle <= place)
            if where[low] < place:
                share = (place - where[low]) / (where[low + 1] - where[low])
                shares = [(low, 1 - share), (low + 1, share)]
            sides.append(shares or [(low, 1.0)])
        resized[pixel] = sum(a * b * values[i, j] for i, a in sides[0] for j, b in sides[1])
    return resized


def slow_monai(f, image, window, overlap, mode, target):
    """Probabilities, averaged over windows; the last one is moved inside.

    In mode "mean_patch" it multiplies where it says that it replaces.
    """
    height, width, _ = image.shape
    axes = zip(window, (height, width), strict=True)
    steps = [w if w == d else max(1, int(w * (1 - overlap))) for w, d in axes]
    fading, importance = slow_fading(window), np.ones(window)
    if mode == "gaussian":
        middle = [(w - 1) / 2 for w in window]
        for r, c in np.ndindex(window):
            away = (r - middle[0]) / (window[0] / 8), (c - middle[1]) / (window[1] / 8)
            importance[r, c] = max(np.exp(-(away[0] ** 2 + away[1] ** 2) / 2), 1e-3)
    total, weight = np.zeros((height, width)), np.zeros((height, width))
    for top in slow_starts(height, window[0], steps[0], "shift"):
        for left in slow_starts(width, window[1], steps[1], "shift"):
            where = slice(top, top + window[0]), slice(left, left + window[1])
            occluded = np.array(image, np.float64)
            if mode == "gaussian":
                occluded[where] *= 1 - fading[..., None]
            elif mode == "mean_patch":
                occluded[where] *= occluded[where].mean()
            else:
                occluded[where] = image.mean(dtype=float) if mode == "mean_img" else mode
            total[where] += scored(f, occluded)[target] * importance
            weight[where] += importance
    return total / weight


def slow_fading(window):
    """A Gaussian of σ = window / 4 around pixel window // 2, integrated per pixel, made 0 to 1."""
    bell = np.zeros(window)
    for r, c in np.ndindex(window):
        sides = []
        for at, size in ((r, window[0]), (c, window[1])):
            scale, offset = size / 4 * sqrt(2), at - size // 2
            sides.append(erf((offset + 0.5) / scale) - erf((offset - 0.5) / scale))
        bell[r, c] = sides[0] * sides[1]
    return (bell - bell.min()) / (bell.max() - bell.min())


def slow_blur(image, sigma):
    """A Gaussian, cut off at 4 sigma, over an image continued by its edge pixels."""
    radius = ceil(4 * sigma)
    height, width, channels = image.shape
    offsets = range(-radius, radius + 1)
    squares = np.array([[r * r + c * c for c in offsets] for r in offsets])
    kernel = np.exp(-squares / (2 * sigma**2))
    kernel /= kernel.sum()
    blurred = np.zeros((height, width, channels))
    for row, col in np.ndindex(height, width):
        for r in offsets:
            for c in offsets:
                pixel = image[min(max(row + r, 0), height - 1), min(max(col + c, 0), width - 1)]
                blurred[row, col] += kernel[r + radius, c + radius] * pixel.astype(np.float64)
    return blurred
