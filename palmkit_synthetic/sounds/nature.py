"""Weather, water and fire: shaped noise, and many small events at random moments."""

from __future__ import annotations

import numpy as np

from palmkit_synthetic.dsp import (
    curve,
    cycles,
    noise,
    normalize,
    place,
    repeat,
    ring,
    samples,
    scatter,
    strike,
    time,
    tone,
    wander,
)
from palmkit_synthetic.sounds.animals import gull


def rain(draw):
    """Thousands of drops: a bed of noise, and single ones that click on leaves, ring on glass or
    drum on a tin roof.
    """
    slope, low = draw.uniform("slope", -0.4, 1.3), draw.log("low edge", 90, 1700)
    rate, amount = draw.log("drops a second", 25, 900), draw.uniform("drop level", 0.1, 1.3)
    surface, decay = (
        draw.log("surface resonance", 900, 9500),
        draw.log("resonance time", 0.0007, 0.007),
    )

    def drop():
        pitch = surface * draw.vary(0.5, 2)
        body = ring([pitch, pitch * draw.vary(1.2, 2)], [decay, decay], [1, 0.5], 0.03)
        return body + 0.3 * draw.rng.standard_normal(len(body)) * strike(len(body), 0.002)

    bed = noise(draw.rng, draw.n, slope, low, draw.log("high edge", 3500, 19_000)) * wander(
        draw.rng, draw.n, 1, 0.8, 1
    )
    return bed + amount * normalize(scatter(draw, drop, rate, 2.0))


def sea(draw):
    """Waves: every 3 to 9 s a swell of rumbling noise, whose crest breaks into a bright hiss that
    runs up the shore.
    """
    period, rise = draw.uniform("period", 2.3, 9.5), draw.uniform("rise", 0.15, 0.65)
    slope, wash = draw.uniform("slope", 0.5, 1.9), draw.uniform("wash", 0.05, 0.8)
    edge, bed = draw.log("high edge", 1800, 16_000), draw.uniform("bed", 0.1, 0.7)
    t, x = time(draw.n), np.zeros(draw.n)
    for _ in range(draw.count(1, 3)):
        phase = (t / (period * draw.vary(0.8, 1.2)) + draw.vary(0, 1)) % 1
        height = np.where(phase < rise, phase / rise, (1 - phase) / (1 - rise)) ** draw.vary(1, 3)
        x += (height + 0.08) * noise(draw.rng, draw.n, slope, 30, edge)
        x += wash * height**2 * noise(draw.rng, draw.n, 0.2, 400, 12_000)
    x += bed * noise(draw.rng, draw.n, 1.3, 20, edge / 3)
    return x + draw.vary(0.3, 1.5) * gull(draw) if draw.chance(0.08) else x


def wind(draw):
    """Gusts: bands of noise whose pitch and strength move together, over a low roar; in a gap it
    whistles.
    """
    centre, pace = draw.log("centre", 180, 1300), draw.uniform("gusts", 0.4, 2.6)
    roar, whistling = draw.uniform("roar", 0.2, 1.6), draw.uniform("whistle", 0, 0.25)
    x = roar * noise(draw.rng, draw.n, 2.2, 20, 800) * wander(draw.rng, draw.n, 2, 0.2, 1)
    for _ in range(3):
        middle = centre * draw.vary(0.5, 2)
        x += wander(draw.rng, draw.n, pace) ** 2 * noise(
            draw.rng, draw.n, 0.5, middle * 0.6, middle * 1.7
        )
    howl = wander(draw.rng, draw.n, pace)
    pitch = centre * (0.8 + 0.5 * howl) * (1 + 0.03 * wander(draw.rng, draw.n, 300, -1, 1))
    return x + whistling * howl**2 * tone(pitch, draw.n)


def thunder(draw):
    """A crack and then a long roll: noise that gets darker, in bursts as echoes arrive; often with
    rain.
    """
    fall, edge = draw.log("roll", 0.7, 2.8), draw.log("high edge", 180, 2800)
    crack, pace = draw.uniform("crack", 0, 1.6), draw.uniform("bursts", 4, 12)
    x = np.zeros(draw.n)
    roll = noise(draw.rng, draw.n, 1.8, 20, edge) * strike(draw.n, fall, draw.vary(0.005, 0.25))
    burst = noise(draw.rng, draw.n, 0.5, 100, 9000) * strike(draw.n, draw.vary(0.05, 0.3), 0.003)
    place(
        x,
        2 * roll * wander(draw.rng, draw.n, pace, 0.15, 1) + crack * burst,
        draw.vary(0, 0.2 * draw.seconds),
    )
    return (
        x + draw.vary(0.03, 0.3) * noise(draw.rng, draw.n, 0.3, 500, 9000)
        if draw.chance(0.4)
        else x
    )


def fire(draw):
    """Crackling: sharp snaps of 1 to 30 ms at random moments over a soft, low, flickering roar."""
    rate, dullness = draw.log("crackles a second", 3.5, 90), draw.log("low edge", 350, 2800)
    roar, edge = draw.log("roar", 0.008, 0.3), draw.log("roar edge", 250, 5500)
    decay = draw.log("crackle time", 0.0004, 0.005)

    def crackle():
        n = samples(draw.vary(0.01, 0.04))
        return noise(draw.rng, n, 0.2, dullness, draw.vary(5000, 18_000)) * strike(
            n, decay * draw.vary(0.5, 3), 0.0002
        )

    flames = noise(draw.rng, draw.n, 1.6, 20, edge) * wander(
        draw.rng, draw.n, draw.vary(2, 10), 0.4, 1
    )
    snaps = scatter(draw, crackle, rate, 1.5)
    hiss = draw.vary(0, 0.05) * noise(draw.rng, draw.n, 0, 1000, 15_000)
    return snaps / (np.abs(snaps).max() + 1e-9) + roar * flames + hiss


def drip(draw, pitch, decay):
    """One bubble: a drop shuts in air that rings, higher as the bubble rises and shrinks."""
    n = samples(0.12)
    start = pitch * draw.vary(0.7, 1.4)
    return tone(curve(n, start, start * draw.vary(1.1, 1.8)), n) * strike(
        n, decay * draw.vary(0.6, 1.6), 0.001
    )


def drops(draw):
    """A dripping tap: single bubbles, one to six a second."""
    pitch, decay = draw.log("pitch", 450, 3200), draw.log("decay", 0.008, 0.05)
    rate, jitter = draw.log("drops a second", 0.6, 6.5), draw.uniform("jitter", 0.02, 0.6)
    return repeat(draw, lambda: drip(draw, pitch, decay), rate, jitter) + 0.003 * noise(
        draw.rng, draw.n, 1
    )


def stream(draw):
    """A brook: hundreds of bubbles a second over a broad hiss."""
    pitch, rate = draw.log("pitch", 400, 2200), draw.log("bubbles a second", 50, 350)
    hiss, decay = draw.uniform("hiss", 0.1, 1.0), draw.log("decay", 0.005, 0.03)
    bubbles = scatter(draw, lambda: drip(draw, pitch * draw.vary(0.5, 1.6), decay), rate)
    return normalize(bubbles) + hiss * noise(draw.rng, draw.n, 0.8, 200, 9000)


def pouring(draw):
    """Filling a vessel: bubbles and splashing, filtered by a column of air that gets shorter, so
    its pitch rises.
    """
    bottom, top = draw.log("empty pitch", 250, 700), draw.log("full pitch", 900, 3500)
    rate, splash = draw.log("bubbles a second", 60, 300), draw.uniform("splash", 0.2, 1.2)
    column = curve(draw.n, bottom, bottom * 1.4, top)
    resonance = tone(column * (1 + 0.05 * wander(draw.rng, draw.n, 200, -1, 1)), draw.n)
    bubbles = normalize(scatter(draw, lambda: drip(draw, bottom * 2, 0.01), rate))
    flow = noise(draw.rng, draw.n, 0.6, 300, 11_000) * wander(draw.rng, draw.n, 8, 0.6, 1)
    return bubbles + splash * flow + 0.5 * resonance * wander(draw.rng, draw.n, 40)


def waterfall(draw):
    """Falling water: a steady, dense roar with hardly any structure."""
    slope, low = draw.uniform("slope", 0.2, 1.1), draw.log("low edge", 50, 300)
    x = noise(draw.rng, draw.n, slope, low, draw.log("high edge", 5000, 16_000))
    return x * wander(draw.rng, draw.n, 6, 0.85, 1) + 0.3 * noise(draw.rng, draw.n, 1.8, 20, 300)


def boiling(draw):
    """Boiling water: a dense, low bubbling that swells and sinks, and a simmering hiss."""
    pitch, rate = draw.log("pitch", 180, 900), draw.log("bubbles a second", 15, 90)
    simmer = draw.uniform("simmer", 0.05, 0.5)
    gurgle = scatter(draw, lambda: drip(draw, pitch, 0.03), rate) * wander(
        draw.rng, draw.n, 3, 0.4, 1
    )
    return normalize(gurgle) + simmer * noise(draw.rng, draw.n, 0.4, 600, 9000) * wander(
        draw.rng, draw.n, 10, 0.6, 1
    )


def ice_steps(draw):
    """Snow under boots: every step a crunch, a dense burst of tiny cracks that lasts as long as the
    foot rolls.
    """
    pace, grain = draw.log("steps a second", 1.1, 2.6), draw.log("cracks a second", 250, 900)
    low = draw.log("low edge", 500, 1600)

    def step():
        n = samples(draw.vary(0.2, 0.4))
        cracks = (draw.rng.random(n) < grain / 44_100) * draw.rng.exponential(1, n)
        crunch = np.convolve(cracks, noise(draw.rng, 150, 0.2, low, 9000) * strike(150, 0.001))[:n]
        return (
            crunch
            * np.sin(np.pi * np.linspace(0, 1, n)) ** 0.7
            * (0.6 + 0.4 * (cycles(2 / (n / 44_100), n) % 1))
        )

    return repeat(draw, step, pace, 0.06, 0.3)
