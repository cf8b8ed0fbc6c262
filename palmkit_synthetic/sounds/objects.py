"""Things that are struck, rubbed, broken or fired, and two test signals."""

from __future__ import annotations

import numpy as np

from palmkit_synthetic.dsp import (
    SAMPLE_RATE,
    burst,
    curve,
    gate,
    harmonics,
    low_pass,
    noise,
    peak,
    place,
    pulses,
    repeat,
    ring,
    samples,
    scatter,
    sequence,
    strike,
    swell,
    time,
    tone,
    wander,
)
from palmkit_synthetic.sounds.nature import stream


def door_knock(draw):
    """Knuckles on wood: groups of two to six raps, a panel that rings for 10 to 30 ms."""
    panel, decay = draw.log("panel", 80, 480), draw.log("decay", 0.014, 0.05)
    pace, skin = draw.log("raps a second", 2.6, 9), draw.uniform("knuckle", 0.15, 0.8)

    def group():
        x = np.zeros(samples(0.3 + 6 / pace))
        for k in range(draw.count(2, 6)):
            modes = panel * np.array([1, 1.6, 2.7, 4.1]) * draw.vary(0.97, 1.03)
            rap = ring(modes, decay * np.array([1, 0.7, 0.4, 0.2]), [1, 0.7, 0.5, 0.3], 0.2)
            rap += skin * burst(draw.rng, 0.2, 0.008, 0.5, 200, 3000)
            place(x, rap, k / pace * draw.vary(0.97, 1.03), draw.vary(0.7, 1))
        return x

    return sequence(draw, group, (1, 3), (0.05, 0.5))


def keyboard_typing(draw):
    """Keys: a click when it goes down, a softer one when it comes up, 4 to 14 a second, uneven."""
    rate, fall = draw.log("keys a second", 4, 15), draw.log("decay", 0.0025, 0.011)
    low, high = draw.log("low edge", 400, 2200), draw.log("high edge", 3500, 15_000)

    def key():
        down = burst(draw.rng, 0.1, fall, 0, low * draw.vary(0.8, 1.3), high)
        return down + 0.4 * np.roll(down, samples(draw.vary(0.04, 0.07)))

    return repeat(draw, key, rate, 0.5, 0.7)


def mouse_click(draw):
    """Press and release of a small switch: two 2 ms clicks 50 to 110 ms apart."""
    pitch, decay = draw.log("pitch", 1500, 6800), draw.log("decay", 0.0012, 0.004)
    rate, gap = draw.log("clicks a second", 0.5, 3.5), draw.uniform("release", 0.045, 0.12)

    def click():
        press = ring([pitch, pitch * 1.5], [decay, decay], [1, 0.6], 0.2)
        press += 0.5 * draw.rng.standard_normal(len(press)) * strike(len(press), 0.0015, 0.0002)
        return press + draw.vary(0.5, 0.9) * np.roll(press, samples(gap * draw.vary(0.9, 1.1)))

    return repeat(draw, click, rate, 0.5)


def door_creak(draw):
    """Stick and slip: gliding pulses, 15 to 150 a second, that excite the wood's resonances."""
    speed, length = draw.log("slip rate", 18, 150), draw.uniform("length", 0.6, 3.2)
    wood, decay = draw.log("wood", 350, 2500), draw.log("decay", 0.005, 0.018)
    n = samples(length)
    slips = pulses(speed * 2 ** curve(n, *draw.rng.uniform(-1.2, 1.2, 5)), n) * wander(
        draw.rng, n, 20, 0.4, 1
    )
    body = ring(wood * draw.rng.uniform(0.6, 3, 4), [decay] * 4, [1, 0.8, 0.6, 0.5], 0.06)
    x = np.zeros(draw.n)
    place(x, np.convolve(slips, body)[:n] * swell(n, 0.1, 0.2), draw.vary(0, 0.3 * draw.seconds))
    return x


def door_slam(draw):
    """A heavy thud with the latch's click just before it; the frame rattles."""
    thud, latch = draw.log("thud", 45, 160), draw.log("latch", 1200, 3500)

    def slam():
        x, moment = np.zeros(samples(0.8)), draw.vary(0.02, 0.06)
        place(x, ring([latch, latch * 1.4], [0.006, 0.006], [0.3, 0.2], 0.05), 0.0)
        place(x, burst(draw.rng, 0.8, draw.vary(0.02, 0.06), 0.9, 50, 3500), moment)
        place(x, ring([thud, thud * 1.7, thud * 2.6], [0.12, 0.08, 0.05], [2, 1, 0.6], 0.8), moment)
        return x

    return sequence(draw, slam, (1, 3), (0.3, 1.2))


def can_opening(draw):
    """A ring pull: a crack, the hiss of gas, the lid torn open."""
    metal, hiss = draw.log("metal", 1500, 5000), draw.log("hiss time", 0.08, 0.6)

    def can():
        x = np.zeros(samples(1.3))
        n = samples(1.0)
        place(x, ring([metal, metal * 1.7, metal * 2.3], [0.012] * 3, [1, 0.7, 0.5], 0.1), 0)
        place(x, 0.5 * noise(draw.rng, n, -0.3, 2500, 16_000) * strike(n, hiss, 0.01), 0.01)
        torn = noise(draw.rng, samples(0.2), 0, 1500, 9000) * wander(draw.rng, samples(0.2), 80)
        place(x, 0.6 * torn * swell(len(torn), 0.1, 0.3), draw.vary(0.25, 0.7))
        return x

    return sequence(draw, can, (1, 2), (0.2, 1.0))


def glass_breaking(draw):
    """A blow, then dozens of splinters that ring between 2 and 12 kHz, sooner or later."""
    pitch, spread = draw.log("pitch", 2200, 7000), draw.log("spread", 0.12, 0.5)
    decay, count = draw.log("decay", 0.01, 0.1), draw.count(15, 55)
    x, at = np.zeros(draw.n), draw.vary(0, 0.25 * draw.seconds)
    place(x, burst(draw.rng, 0.3, draw.vary(0.02, 0.07), 0, 1200, 16_000), at, 0.5)
    for _ in range(count):
        note = pitch * draw.vary(0.4, 1.9)
        splinter = ring(
            [note, note * 1.37, note * 2.1],
            decay * draw.rng.uniform(0.5, 1.5, 3),
            [1, 0.6, 0.3],
            0.4,
        )
        place(x, splinter, at + draw.rng.exponential(spread), draw.vary(0.05, 0.5))
    return x


def church_bell(draw):
    """A bell's partials (hum, prime, minor third, fifth, octave...), struck every second or so; one
    to three bells.
    """
    pitch, decay = draw.log("pitch", 140, 950), draw.log("decay", 0.5, 4.5)
    rate, x = draw.log("strokes a second", 0.28, 1.7), np.zeros(draw.n)
    for _ in range(draw.count(1, 3)):
        ratios = np.array([0.5, 1, 1.19, 1.5, 2, 2.51, 2.66, 3.01, 4.1, 5.3]) * draw.rng.uniform(
            0.99, 1.01, 10
        )
        note = pitch * draw.pick([1.0, 1.125, 1.25, 1.5])
        bell = ring(
            note * ratios, decay / ratios**0.7, draw.rng.uniform(0.2, 1, 10), min(4.5, draw.seconds)
        )
        x += repeat(draw, lambda bell=bell: bell, rate * draw.vary(0.8, 1.2), 0.06)
    return x


def doorbell(draw):
    """Ding-dong: two struck bars, the second a third lower; or a buzzing electric bell."""
    pitch, decay = draw.log("pitch", 450, 1100), draw.log("decay", 0.25, 1.2)
    times = [decay, decay / 3, decay / 8]
    ding, dong = (
        ring([p, p * 2.76, p * 5.4], times, [1, 0.25, 0.1], 2.0) for p in (pitch, pitch / 1.26)
    )
    if draw.chance(0.25):
        buzz = ring([pitch * 2, pitch * 3.1], [0.05, 0.03], [1, 0.6], 0.1)
        return repeat(draw, lambda: buzz, draw.vary(14, 24), 0.03, 0.2, draw.count(12, 40))
    pair = np.zeros(samples(2.6))
    place(pair, ding, 0)
    place(pair, dong, draw.vary(0.3, 0.7))
    return sequence(draw, lambda: pair, (1, 2), (0.05, 0.3))


def bicycle_bell(draw):
    """A small steel cup struck in a flurry by a rattle, twice or more."""
    pitch, decay = draw.log("pitch", 1800, 4200), draw.log("decay", 0.15, 0.6)
    cup = ring([pitch, pitch * 1.005, pitch * 2.7], [decay, decay, decay / 3], [1, 0.8, 0.4], 1.2)

    def flurry():
        x = np.zeros(samples(1.5))
        for k in range(draw.count(2, 6)):
            place(x, cup, k * draw.vary(0.05, 0.09), draw.vary(0.5, 1))
        return x

    return repeat(draw, flurry, draw.log("a second", 0.5, 1.8), 0.2)


def fireworks(draw):
    """A rocket whistles up, a boom comes, stars crackle; one to four of them."""
    boom, edge = draw.log("boom time", 0.08, 0.4), draw.log("boom edge", 1500, 6000)
    stars, pitch = draw.uniform("stars", 5, 45), draw.log("whistle", 900, 4500)

    def rocket():
        x, rise = np.zeros(samples(3.0)), draw.vary(0.3, 1.0)
        n, m = samples(rise), samples(0.9)
        whistle = tone(
            pitch * curve(n, 0.5, 1) * (1 + 0.02 * wander(draw.rng, n, 200, -1, 1)), n
        ) * swell(n, 0.3, 0.1)
        place(x, whistle, 0, draw.vary(0, 0.3))
        place(x, noise(draw.rng, m, 1.2, 30, edge) * strike(m, boom, 0.002), rise)
        for _ in range(int(stars * draw.vary(0.5, 1.5))):
            place(
                x,
                burst(draw.rng, 0.03, 0.004),
                rise + draw.rng.exponential(0.4),
                draw.vary(0.1, 0.6),
            )
        return x[: samples(rise + draw.vary(0.7, 2.0))]

    return sequence(draw, rocket, (1, 4), (0.05, 0.4), (0, 0.2))


def hand_saw(draw):
    """Strokes to and fro: teeth rasp 60 to 200 times a second, the push louder than the pull."""
    strokes, teeth = draw.log("strokes a second", 1.1, 4.4), draw.log("teeth a second", 55, 220)
    low, high = draw.log("low edge", 450, 1600), draw.log("high edge", 4500, 13_000)
    phase = (np.cumsum(strokes * wander(draw.rng, draw.n, 2, 0.9, 1.1)) / SAMPLE_RATE) % 1
    effort = np.sin(2 * np.pi * phase) ** 2 * np.where(
        phase < 0.5, 1, draw.uniform("pull", 0.15, 0.85)
    )
    return (
        noise(draw.rng, draw.n, 0.2, low, high)
        * effort
        * (1 + 0.8 * tone(teeth * (0.7 + 0.4 * effort), draw.n))
    )


def gunshot(draw):
    """A blast with no onset at all, darkening as it dies; single shots or a burst; the place
    answers with an echo.
    """
    slope, edge = draw.uniform("slope", 0.1, 1.3), draw.log("high edge", 4500, 17_000)
    fall, rate = draw.log("decay", 0.013, 0.09), draw.log("shots a second", 0.8, 12)
    echo = draw.uniform("echo", 0.1, 0.6)

    def shot():
        blast = burst(draw.rng, 1.2, fall, slope, 40, edge, 0.0003)
        return blast + echo * burst(draw.rng, 1.2, draw.vary(0.1, 0.5), 1.2, 40, 2500, 0.01)

    return repeat(draw, shot, rate, 0.1, 0.2, draw.count(1, 8))


def explosion(draw):
    """A deep blast: pressure front, then a long rumble with falling debris."""
    rumble, edge = draw.log("rumble time", 0.35, 1.6), draw.log("high edge", 450, 4500)
    x, n, at = np.zeros(draw.n), draw.n, draw.vary(0, 0.3 * draw.seconds)
    place(x, 2 * noise(draw.rng, n, 1.7, 18, edge) * strike(n, rumble, 0.005), at)
    place(x, noise(draw.rng, n, 0.3, 50, 9000) * strike(n, draw.vary(0.04, 0.12), 0.0005), at)
    debris = noise(draw.rng, n, 0.3, 500, 6000) * wander(draw.rng, n, 30) ** 4 * strike(n, 1.0, 0.3)
    place(x, debris, at, draw.uniform("debris", 0, 0.4))
    return x


def hammer(draw):
    """Blows on a nail: steel rings briefly, the wood thuds, a little higher each time."""
    rate, steel, wood = (
        draw.log("blows a second", 1.1, 4.5),
        draw.log("steel", 1400, 4800),
        draw.log("wood", 120, 500),
    )
    ringing = draw.log("decay", 0.015, 0.12)

    def blow():
        nail = ring(
            [steel, steel * 1.53, steel * 2.4],
            [ringing, ringing / 2, ringing / 3],
            [0.6, 0.4, 0.3],
            0.3,
        )
        plank = ring([wood, wood * 1.8], [0.025, 0.015], [1, 0.5], 0.3)
        return nail + plank + burst(draw.rng, 0.3, 0.003, 0, 300, 9000)

    return repeat(draw, blow, rate, 0.06, 0.3)


def coin_drop(draw):
    """Coins: high clear modes, bounces that come quicker and quicker, then a spin that dies."""
    pitch, decay = draw.log("pitch", 3200, 8500), draw.log("decay", 0.03, 0.2)

    def coin():
        x, at, gap = np.zeros(samples(1.6)), 0.0, draw.vary(0.12, 0.4)
        while gap > 0.012 and at < 1.5:
            modes = pitch * np.array([1, 1.53, 2.1]) * draw.vary(0.98, 1.02)
            place(
                x,
                ring(modes, decay * np.array([1, 0.7, 0.4]), [1, 0.7, 0.4], 0.4),
                at,
                min(1, gap * 4),
            )
            at, gap = at + gap, gap * draw.vary(0.6, 0.85)
        return x

    return sequence(draw, coin, (1, 4), (0.02, 0.6))


def bouncing_ball(draw):
    """A ball let fall: thumps whose intervals shrink by a constant share."""
    pitch, keep = draw.log("pitch", 70, 900), draw.uniform("restitution", 0.62, 0.92)
    first = draw.uniform("first interval", 0.35, 0.8)

    def fall():
        x, at, gap = np.zeros(samples(4.0)), 0.0, first
        while gap > 0.03 and at < 3.8:
            thump = ring([pitch, pitch * 2.1], [0.02, 0.01], [1, 0.5], 0.15)
            place(x, thump + 0.3 * burst(draw.rng, 0.15, 0.005, 0.3, 200, 5000), at, gap / first)
            at, gap = at + gap, gap * keep
        return x

    return sequence(draw, fall, (1, 2), (0.05, 0.3))


def scissors(draw):
    """Blades: a rising metallic scrape that ends in a snip, one to four a second."""
    rate, metal = draw.log("cuts a second", 0.8, 4.2), draw.log("metal", 2500, 7500)

    def cut():
        n = samples(draw.vary(0.12, 0.25))
        scrape = noise(draw.rng, n, 0, metal * 0.6, metal * 1.8) * wander(draw.rng, n, 150, 0.4, 1)
        return np.concatenate(
            [
                0.4 * scrape * curve(n, 0.05, 0.4, 1),
                ring([metal, metal * 1.6], [0.006, 0.004], [1, 0.6], 0.05),
            ]
        )

    return repeat(draw, cut, rate, 0.12, 0.4)


def zipper(draw):
    """Teeth 40 to 220 times a second, quicker and quicker; pulled once or to and fro."""
    speed, low = draw.log("teeth a second", 55, 260), draw.log("low edge", 1200, 3500)

    def pull():
        n, m = samples(draw.vary(0.3, 1.2)), samples(0.006)
        click = noise(draw.rng, m, 0, low, 13_000) * strike(m, 0.002, 0.0003)
        teeth = np.convolve(pulses(speed * curve(n, 0.5, draw.vary(0.9, 1.3), 1), n), click)[:n]
        return teeth + 0.04 * noise(draw.rng, n, 0, 2000)

    return sequence(draw, pull, (1, 3), (0.2, 1.2))


def paper_crumple(draw):
    """Paper: hundreds of small buckling clicks a second, in handfuls."""
    rate, low = draw.log("clicks a second", 60, 350), draw.log("low edge", 700, 2800)

    def click():
        return burst(
            draw.rng, 0.012, draw.vary(0.0006, 0.003), 0, low * draw.vary(0.7, 1.4), 13_000, 0.0002
        )

    return scatter(draw, click, rate, 1.3) * np.clip(wander(draw.rng, draw.n, 4, -0.3, 1), 0, 1)


def camera_shutter(draw):
    """Mirror up, shutter, mirror down: two or three clacks within a fifth of a second; sometimes a
    burst.
    """
    metal, length = draw.log("metal", 900, 3500), draw.log("exposure", 0.04, 0.2)

    def clack():
        x = np.zeros(samples(0.4))
        for at, gain in ((0, 1.0), (length, 0.8), (length * 1.4, 0.4)):
            part = ring([metal, metal * 1.8], [0.008, 0.005], [1, 0.6], 0.05)
            place(x, part + burst(draw.rng, 0.05, 0.005, 0.2, 400, 9000), at, gain)
        return x

    return repeat(draw, clack, draw.log("a second", 0.5, 4), 0.3)


def typewriter(draw):
    """Type bars: hard clacks with metal in them, 4 to 10 a second; the bell and the carriage at the
    line's end.
    """
    rate, metal = draw.log("keys a second", 3.5, 10.5), draw.log("metal", 900, 3000)
    x = np.zeros(draw.n)

    def stroke():
        bar = ring([metal, metal * 1.9], [0.014, 0.008], [1.2, 0.7], 0.1)
        return bar + burst(draw.rng, 0.1, 0.006, 0.3, 300, 9000)

    if draw.chance(0.5):
        at = draw.vary(0.4, 0.8) * draw.seconds
        place(x, 3 * ring([2400, 4900], [0.4, 0.2], [1, 0.4], 1.0), at)
        rail = samples(0.5)
        place(
            x, 0.8 * noise(draw.rng, rail, 0.2, 600, 6000) * (0.6 + 0.4 * tone(45, rail)), at + 0.3
        )
    return x + repeat(draw, stroke, rate, 0.3, 0.4)


def frying(draw):
    """Sizzling: water bursting in hot oil, thousands of tiny pops over a bright hiss."""
    rate, low = draw.log("pops a second", 80, 700), draw.log("low edge", 1500, 4500)

    def pop():
        return burst(
            draw.rng, 0.008, draw.vary(0.0004, 0.002), 0, low * draw.vary(0.7, 1.5), 17_000, 0.0002
        )

    hiss = noise(draw.rng, draw.n, -0.2, low, 15_000) * wander(draw.rng, draw.n, 5, 0.7, 1)
    return peak(scatter(draw, pop, rate, 1.5)) + draw.log("hiss", 0.03, 0.3) * hiss


def steam(draw):
    """Steam or gas let out under pressure: a loud bright hiss that starts at once and sinks."""
    low, fall = draw.log("low edge", 700, 3500), draw.log("decay", 0.5, 3)

    def jet():
        n = samples(draw.vary(0.8, 2.5))
        return noise(draw.rng, n, -0.3, low, 17_000) * strike(n, fall, 0.03) * swell(n, 0.01, 0.1)

    return sequence(draw, jet, (1, 3), (0.1, 0.8))


def toilet_flush(draw):
    """A rush of water that peaks after a second, gurgles and runs dry."""
    slope, edge = draw.uniform("slope", 0.4, 1.2), draw.log("high edge", 2500, 10_000)
    flow = curve(draw.n, 0.05, *draw.rng.uniform(0.8, 1, 2), 0.9, 0.6, 0.3, 0.15, 0.1)
    gurgle = low_pass(np.abs(tone(draw.log("gurgle", 5, 14), draw.n)), 60)
    return (
        noise(draw.rng, draw.n, slope, 120, edge) * flow * (0.7 + 0.3 * gurgle)
        + 0.3 * stream(draw) * flow
    )


def white_noise(draw):
    """Hiss of an untuned radio: all frequencies equally."""
    return noise(draw.rng, draw.n, draw.uniform("slope", -0.3, 0.3))


def pure_tone(draw):
    """One sine, held or switched on and off."""
    pitch, rate = draw.log("pitch", 130, 6500), draw.log("beeps a second", 0.5, 4)
    steady = tone(pitch, draw.n)
    return steady if draw.chance(0.6) else steady * gate(time(draw.n) * rate % 1 < 0.5, 60)


def wind_chimes(draw):
    """Metal tubes of a pentatonic scale, struck at random moments as the wind comes and goes."""
    pitch, decay = draw.log("pitch", 700, 2200), draw.log("decay", 0.4, 1.8)
    tubes = [pitch * 2 ** (step / 12) for step in (0, 2, 4, 7, 9, 12)]

    def chime():
        note = draw.pick(tubes)
        return ring(
            [note, note * 2.76, note * 5.4], [decay, decay / 2, decay / 5], [1, 0.5, 0.2], 2.5
        )

    return scatter(draw, chime, draw.log("strokes a second", 1.5, 9), 0.8) + 0.01 * noise(
        draw.rng, draw.n, 1.5
    )


def singing_bowl(draw):
    """A gong or bowl: a dense set of beating low modes, struck once or twice, that dies over
    seconds.
    """
    pitch, decay = draw.log("pitch", 70, 330), draw.log("decay", 0.9, 4)
    ratios = np.sort(draw.rng.uniform(1, 9, 18))
    bowl = ring(
        pitch * ratios, decay / ratios**0.6, draw.rng.uniform(0.2, 1, 18), min(4.5, draw.seconds)
    )
    bowl += 0.3 * harmonics(draw.rng, pitch, len(bowl), [1.0]) * strike(len(bowl), decay, 0.02)
    return repeat(draw, lambda: bowl, draw.log("strokes a second", 0.25, 1), 0.1)
