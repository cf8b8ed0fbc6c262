"""Weather, water and fire: shaped noise, and many small events at random moments."""

from __future__ import annotations

import numpy as np

from palmkit_synthetic.dsp import (
    SAMPLE_RATE,
    contact,
    curve,
    noise,
    normalize,
    peak,
    phase,
    place,
    repeat,
    ring,
    samples,
    scatter,
    strike,
    time,
    tone,
)
from palmkit_synthetic.sounds.animals import gull

# --- weather


def rain(draw):
    """Thousands of drops: a bed of noise, and single ones that ring.

    They click on leaves, ring on glass or drum on a tin roof.
    """
    slope = draw.uniform("slope", -0.4, 1.3)
    low = draw.log("low edge", 90, 1700)
    rate = draw.log("drops a second", 25, 900)
    level = draw.uniform("drop level", 0.1, 1.3)
    surface = draw.log("surface resonance", 900, 9500)
    decay = draw.log("resonance time", 0.0007, 0.007)

    def drop():
        pitch = surface * draw.vary(0.5, 2)
        modes = [pitch, pitch * draw.vary(1.2, 2)]
        body = ring(modes, [decay, decay], [1, 0.5], 0.03)
        return body + contact(draw.rng, len(body), 0.002, 0.3)

    high = draw.log("high edge", 3500, 19_000)
    bed = draw.noise(slope, low, high) * draw.wander(1, 0.8, 1)
    return bed + level * normalize(scatter(draw, drop, rate, 2.0))


def sea(draw):
    """Waves: every 3 to 9 s a swell of rumbling noise.

    Its crest breaks into a bright hiss that runs up the shore. Now and then gulls cry.
    """
    period = draw.uniform("period", 2.3, 9.5)
    rise = draw.uniform("rise", 0.15, 0.65)
    slope = draw.uniform("slope", 0.5, 1.9)
    wash = draw.uniform("wash", 0.05, 0.8)
    edge = draw.log("high edge", 1800, 16_000)
    bed = draw.uniform("bed", 0.1, 0.7)
    t = time(draw.n)
    x = draw.silence()
    for _ in range(draw.count(1, 3)):
        waves = t / (period * draw.vary(0.8, 1.2))
        turn = (waves + draw.vary(0, 1)) % 1
        slopes = np.where(turn < rise, turn / rise, (1 - turn) / (1 - rise))
        height = slopes ** draw.vary(1, 3)
        x += (height + 0.08) * draw.noise(slope, 30, edge)
        x += wash * height**2 * draw.noise(0.2, 400, 12_000)
    x += bed * draw.noise(1.3, 20, edge / 3)
    if draw.chance(0.08):
        return x + draw.vary(0.3, 1.5) * gull(draw)
    return x


def wind(draw):
    """Gusts: bands of noise whose pitch and strength move together, over a low roar.

    In a gap it whistles.
    """
    centre = draw.log("centre", 180, 1300)
    pace = draw.uniform("gusts", 0.4, 2.6)
    roar = draw.uniform("roar", 0.2, 1.6)
    whistling = draw.uniform("whistle", 0, 0.25)
    x = roar * draw.noise(2.2, 20, 800) * draw.wander(2, 0.2, 1)
    for _ in range(3):
        middle = centre * draw.vary(0.5, 2)
        gust = draw.wander(pace) ** 2
        x += gust * draw.noise(0.5, middle * 0.6, middle * 1.7)
    howl = draw.wander(pace)
    flutter = 1 + 0.03 * draw.wander(300, -1, 1)
    pitch = centre * (0.8 + 0.5 * howl) * flutter
    return x + whistling * howl**2 * tone(pitch, draw.n)


def thunder(draw):
    """A crack and then a long roll: dark noise in bursts as echoes arrive; often with rain."""
    fall = draw.log("roll", 0.7, 2.8)
    edge = draw.log("high edge", 180, 2800)
    crack = draw.uniform("crack", 0, 1.6)
    pace = draw.uniform("bursts", 4, 12)
    x = draw.silence()
    roll = draw.noise(1.8, 20, edge)
    roll *= strike(draw.n, fall, draw.vary(0.005, 0.25))
    blow = draw.noise(0.5, 100, 9000)
    blow *= strike(draw.n, draw.vary(0.05, 0.3), 0.003)
    echoes = draw.wander(pace, 0.15, 1)
    place(x, 2 * roll * echoes + crack * blow, draw.vary(0, 0.2 * draw.seconds))
    if draw.chance(0.4):
        return x + draw.vary(0.03, 0.3) * draw.noise(0.3, 500, 9000)
    return x


def fire(draw):
    """Crackling: sharp snaps of 1 to 30 ms at random moments over a soft, low, flickering roar."""
    rate = draw.log("crackles a second", 3.5, 90)
    low = draw.log("low edge", 350, 2800)
    roar = draw.log("roar", 0.008, 0.3)
    edge = draw.log("roar edge", 250, 5500)
    decay = draw.log("crackle time", 0.0004, 0.005)

    def crackle():
        n = samples(draw.vary(0.01, 0.04))
        snap = noise(draw.rng, n, 0.2, low, draw.vary(5000, 18_000))
        return snap * strike(n, decay * draw.vary(0.5, 3), 0.0002)

    flames = draw.noise(1.6, 20, edge)
    flames *= draw.wander(draw.vary(2, 10), 0.4, 1)
    snaps = scatter(draw, crackle, rate, 1.5)
    hiss = draw.vary(0, 0.05) * draw.noise(0, 1000, 15_000)
    return peak(snaps) + roar * flames + hiss


# --- water


def drip(draw, pitch, decay):
    """One bubble: a drop shuts in air that rings, higher as the bubble rises and shrinks."""
    n = samples(0.12)
    start = pitch * draw.vary(0.7, 1.4)
    end = start * draw.vary(1.1, 1.8)
    bubble = tone(curve(n, start, end), n)
    return bubble * strike(n, decay * draw.vary(0.6, 1.6), 0.001)


def drops(draw):
    """A dripping tap: single bubbles, one to six a second."""
    pitch = draw.log("pitch", 450, 3200)
    decay = draw.log("decay", 0.008, 0.05)
    rate = draw.log("drops a second", 0.6, 6.5)
    jitter = draw.uniform("jitter", 0.02, 0.6)
    bubbles = repeat(draw, lambda: drip(draw, pitch, decay), rate, jitter)
    return bubbles + 0.003 * draw.noise(1)


def stream(draw):
    """A brook: hundreds of bubbles a second over a broad hiss."""
    pitch = draw.log("pitch", 400, 2200)
    rate = draw.log("bubbles a second", 50, 350)
    hiss = draw.uniform("hiss", 0.1, 1.0)
    decay = draw.log("decay", 0.005, 0.03)
    bubbles = scatter(draw, lambda: drip(draw, pitch * draw.vary(0.5, 1.6), decay), rate)
    return normalize(bubbles) + hiss * draw.noise(0.8, 200, 9000)


def pouring(draw):
    """Filling a vessel: bubbles and splashing.

    A column of air resonates; it gets shorter, so its pitch rises.
    """
    bottom = draw.log("empty pitch", 250, 700)
    top = draw.log("full pitch", 900, 3500)
    rate = draw.log("bubbles a second", 60, 300)
    splash = draw.uniform("splash", 0.2, 1.2)
    column = curve(draw.n, bottom, bottom * 1.4, top)
    flutter = 1 + 0.05 * draw.wander(200, -1, 1)
    resonance = tone(column * flutter, draw.n)
    bubbles = normalize(scatter(draw, lambda: drip(draw, bottom * 2, 0.01), rate))
    flow = draw.noise(0.6, 300, 11_000) * draw.wander(8, 0.6, 1)
    return bubbles + splash * flow + 0.5 * resonance * draw.wander(40)


def waterfall(draw):
    """Falling water: a steady, dense roar with hardly any structure."""
    slope = draw.uniform("slope", 0.2, 1.1)
    low = draw.log("low edge", 50, 300)
    high = draw.log("high edge", 5000, 16_000)
    roar = draw.noise(slope, low, high) * draw.wander(6, 0.85, 1)
    return roar + 0.3 * draw.noise(1.8, 20, 300)


def boiling(draw):
    """Boiling water: a dense, low bubbling that swells and sinks, and a simmering hiss."""
    pitch = draw.log("pitch", 180, 900)
    rate = draw.log("bubbles a second", 15, 90)
    level = draw.uniform("simmer", 0.05, 0.5)
    bubbles = scatter(draw, lambda: drip(draw, pitch, 0.03), rate)
    gurgle = bubbles * draw.wander(3, 0.4, 1)
    simmer = level * draw.noise(0.4, 600, 9000) * draw.wander(10, 0.6, 1)
    return normalize(gurgle) + simmer


def ice_steps(draw):
    """Snow under boots: every step a crunch.

    A crunch is a dense burst of tiny cracks that lasts as long as the foot rolls.
    """
    pace = draw.log("steps a second", 1.1, 2.6)
    grain = draw.log("cracks a second", 250, 900)
    low = draw.log("low edge", 500, 1600)

    def step():
        n = samples(draw.vary(0.2, 0.4))
        moments = draw.rng.random(n) < grain / SAMPLE_RATE
        cracks = moments * draw.rng.exponential(1, n)
        crack = noise(draw.rng, 150, 0.2, low, 9000) * strike(150, 0.001)
        crunch = np.convolve(cracks, crack)[:n]
        rolling = np.sin(np.pi * np.linspace(0, 1, n)) ** 0.7
        heel_and_toe = 0.6 + 0.4 * phase(2 / (n / SAMPLE_RATE), n)  # two cycles a step
        return crunch * rolling * heel_and_toe

    return repeat(draw, step, pace, jitter=0.06, weaker=0.3)
