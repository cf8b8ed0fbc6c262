"""Things that are struck, rubbed, broken or fired, and two test signals."""

from __future__ import annotations

import numpy as np

from palmkit_synthetic.dsp import (
    TAU,
    burst,
    contact,
    curve,
    gate,
    harmonics,
    low_pass,
    multiples,
    noise,
    peak,
    phase,
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

# --- doors, keys and switches


def door_knock(draw):
    """Knuckles on wood: groups of two to six raps, a panel that rings for 10 to 30 ms."""
    panel = draw.log("panel", 80, 480)
    decay = draw.log("decay", 0.014, 0.05)
    pace = draw.log("raps a second", 2.6, 9)
    skin = draw.uniform("knuckle", 0.15, 0.8)
    decays = multiples(decay, 1, 0.7, 0.4, 0.2)

    def rap():
        modes = multiples(panel, 1, 1.6, 2.7, 4.1) * draw.vary(0.97, 1.03)
        wood = ring(modes, decays, [1, 0.7, 0.5, 0.3], 0.2)
        return wood + skin * burst(draw.rng, 0.2, 0.008, 0.5, 200, 3000)

    def group():
        x = np.zeros(samples(0.3 + 6 / pace))
        for k in range(draw.count(2, 6)):
            sound = rap()
            place(x, sound, k / pace * draw.vary(0.97, 1.03), draw.vary(0.7, 1))
        return x

    return sequence(draw, group, count=(1, 3), gap=(0.05, 0.5))


def keyboard_typing(draw):
    """Keys: a click when it goes down, a softer one when it comes up, 4 to 14 a second, uneven."""
    rate = draw.log("keys a second", 4, 15)
    decay = draw.log("decay", 0.0025, 0.011)
    low = draw.log("low edge", 400, 2200)
    high = draw.log("high edge", 3500, 15_000)

    def key():
        down = burst(draw.rng, 0.1, decay, 0, low * draw.vary(0.8, 1.3), high)
        return down + 0.4 * np.roll(down, samples(draw.vary(0.04, 0.07)))

    return repeat(draw, key, rate, jitter=0.5, weaker=0.7)


def mouse_click(draw):
    """Press and release of a small switch: two 2 ms clicks 50 to 110 ms apart."""
    pitch = draw.log("pitch", 1500, 6800)
    decay = draw.log("decay", 0.0012, 0.004)
    rate = draw.log("clicks a second", 0.5, 3.5)
    gap = draw.uniform("release", 0.045, 0.12)

    def click():
        press = ring(multiples(pitch, 1, 1.5), [decay, decay], [1, 0.6], 0.2)
        press += contact(draw.rng, len(press), 0.0015, attack=0.0002)
        softer = draw.vary(0.5, 0.9)
        return press + softer * np.roll(press, samples(gap * draw.vary(0.9, 1.1)))

    return repeat(draw, click, rate, jitter=0.5)


def door_creak(draw):
    """Stick and slip: gliding pulses, 15 to 150 a second, that excite the wood's resonances."""
    speed = draw.log("slip rate", 18, 150)
    length = draw.uniform("length", 0.6, 3.2)
    wood = draw.log("wood", 350, 2500)
    decay = draw.log("decay", 0.005, 0.018)
    n = samples(length)
    octaves = curve(n, *draw.rng.uniform(-1.2, 1.2, 5))
    slips = pulses(speed * 2**octaves, n) * wander(draw.rng, n, 20, 0.4, 1)
    modes = wood * draw.rng.uniform(0.6, 3, 4)
    body = ring(modes, [decay] * 4, [1, 0.8, 0.6, 0.5], 0.06)
    creak = np.convolve(slips, body)[:n] * swell(n, 0.1, 0.2)
    x = draw.silence()
    place(x, creak, draw.vary(0, 0.3 * draw.seconds))
    return x


def door_slam(draw):
    """A heavy thud with the latch's click just before it; the frame rattles."""
    thud = draw.log("thud", 45, 160)
    latch = draw.log("latch", 1200, 3500)

    def slam():
        x = np.zeros(samples(0.8))
        moment = draw.vary(0.02, 0.06)
        click = ring(multiples(latch, 1, 1.4), [0.006, 0.006], [0.3, 0.2], 0.05)
        frame = burst(draw.rng, 0.8, draw.vary(0.02, 0.06), 0.9, 50, 3500)
        modes = multiples(thud, 1, 1.7, 2.6)
        leaf = ring(modes, [0.12, 0.08, 0.05], [2, 1, 0.6], 0.8)
        place(x, click, 0.0)
        place(x, frame, moment)
        place(x, leaf, moment)
        return x

    return sequence(draw, slam, count=(1, 3), gap=(0.3, 1.2))


# --- things that open, break or fall


def can_opening(draw):
    """A ring pull: a crack, the hiss of gas, the lid torn open."""
    metal = draw.log("metal", 1500, 5000)
    hiss = draw.log("hiss time", 0.08, 0.6)
    modes = multiples(metal, 1, 1.7, 2.3)
    crack = ring(modes, [0.012] * 3, [1, 0.7, 0.5], 0.1)

    def can():
        x = np.zeros(samples(1.3))
        place(x, crack, 0)
        gas = burst(draw.rng, 1.0, hiss, -0.3, 2500, 16_000, 0.01)
        place(x, gas, 0.01, 0.5)
        n = samples(0.2)
        torn = noise(draw.rng, n, 0, 1500, 9000) * wander(draw.rng, n, 80)
        place(x, 0.6 * torn * swell(n, 0.1, 0.3), draw.vary(0.25, 0.7))
        return x

    return sequence(draw, can, count=(1, 2), gap=(0.2, 1.0))


def glass_breaking(draw):
    """A blow, then dozens of splinters that ring between 2 and 12 kHz, sooner or later."""
    pitch = draw.log("pitch", 2200, 7000)
    spread = draw.log("spread", 0.12, 0.5)
    decay = draw.log("decay", 0.01, 0.1)
    count = draw.count(15, 55)
    x = draw.silence()
    at = draw.vary(0, 0.25 * draw.seconds)
    blow = burst(draw.rng, 0.3, draw.vary(0.02, 0.07), 0, 1200, 16_000)
    place(x, blow, at, 0.5)
    for _ in range(count):
        modes = multiples(pitch * draw.vary(0.4, 1.9), 1, 1.37, 2.1)
        decays = decay * draw.rng.uniform(0.5, 1.5, 3)
        splinter = ring(modes, decays, [1, 0.6, 0.3], 0.4)
        place(x, splinter, at + draw.rng.exponential(spread), draw.vary(0.05, 0.5))
    return x


def coin_drop(draw):
    """Coins: high clear modes, bounces that come quicker and quicker, then a spin that dies."""
    pitch = draw.log("pitch", 3200, 8500)
    decay = draw.log("decay", 0.03, 0.2)
    decays = multiples(decay, 1, 0.7, 0.4)

    def coin():
        x = np.zeros(samples(1.6))
        at = 0.0
        gap = draw.vary(0.12, 0.4)
        while gap > 0.012 and at < 1.5:
            modes = multiples(pitch, 1, 1.53, 2.1) * draw.vary(0.98, 1.02)
            bounce = ring(modes, decays, [1, 0.7, 0.4], 0.4)
            place(x, bounce, at, min(1, gap * 4))
            at += gap
            gap *= draw.vary(0.6, 0.85)
        return x

    return sequence(draw, coin, count=(1, 4), gap=(0.02, 0.6))


def bouncing_ball(draw):
    """A ball let fall: thumps whose intervals shrink by a constant share."""
    pitch = draw.log("pitch", 70, 900)
    keep = draw.uniform("restitution", 0.62, 0.92)
    first = draw.uniform("first interval", 0.35, 0.8)

    def fall():
        x = np.zeros(samples(4.0))
        at = 0.0
        gap = first
        while gap > 0.03 and at < 3.8:
            thump = ring(multiples(pitch, 1, 2.1), [0.02, 0.01], [1, 0.5], 0.15)
            skin = 0.3 * burst(draw.rng, 0.15, 0.005, 0.3, 200, 5000)
            place(x, thump + skin, at, gap / first)
            at += gap
            gap *= keep
        return x

    return sequence(draw, fall, count=(1, 2), gap=(0.05, 0.3))


# --- bells


def church_bell(draw):
    """One to three bells with their partials (hum, prime, minor third, fifth, octave...).

    Each is struck every second or so.
    """
    pitch = draw.log("pitch", 140, 950)
    decay = draw.log("decay", 0.5, 4.5)
    rate = draw.log("strokes a second", 0.28, 1.7)
    partials = np.array([0.5, 1, 1.19, 1.5, 2, 2.51, 2.66, 3.01, 4.1, 5.3])
    x = draw.silence()
    for _ in range(draw.count(1, 3)):
        ratios = partials * draw.rng.uniform(0.99, 1.01, 10)
        note = pitch * draw.pick([1.0, 1.125, 1.25, 1.5])
        bell = struck_bell(draw, note, ratios, decay / ratios**0.7)
        x += repeat(draw, lambda bell=bell: bell, rate * draw.vary(0.8, 1.2), jitter=0.06)
    return x


def struck_bell(draw, pitch, ratios, decays):
    """One stroke of a bell or bowl, whose modes are of random loudness."""
    amplitudes = draw.rng.uniform(0.2, 1, len(ratios))
    return ring(pitch * ratios, decays, amplitudes, min(4.5, draw.seconds))


def doorbell(draw):
    """Ding-dong: two struck bars, the second a third lower; or a buzzing electric bell."""
    pitch = draw.log("pitch", 450, 1100)
    decay = draw.log("decay", 0.25, 1.2)
    if draw.chance(0.25):
        buzz = ring(multiples(pitch, 2, 3.1), [0.05, 0.03], [1, 0.6], 0.1)
        rate = draw.vary(14, 24)
        return repeat(draw, lambda: buzz, rate, 0.03, 0.2, draw.count(12, 40))
    decays = [decay, decay / 3, decay / 8]
    ding, dong = (
        ring(multiples(bar, 1, 2.76, 5.4), decays, [1, 0.25, 0.1], 2.0)
        for bar in (pitch, pitch / 1.26)
    )
    pair = np.zeros(samples(2.6))
    place(pair, ding, 0)
    place(pair, dong, draw.vary(0.3, 0.7))
    return sequence(draw, lambda: pair, count=(1, 2), gap=(0.05, 0.3))


def bicycle_bell(draw):
    """A small steel cup struck in a flurry by a rattle, twice or more."""
    pitch = draw.log("pitch", 1800, 4200)
    decay = draw.log("decay", 0.15, 0.6)
    # Two modes 0.5% apart beat: no cup is quite round.
    modes = multiples(pitch, 1, 1.005, 2.7)
    cup = ring(modes, [decay, decay, decay / 3], [1, 0.8, 0.4], 1.2)

    def flurry():
        x = np.zeros(samples(1.5))
        for k in range(draw.count(2, 6)):
            place(x, cup, k * draw.vary(0.05, 0.09), draw.vary(0.5, 1))
        return x

    return repeat(draw, flurry, draw.log("a second", 0.5, 1.8), jitter=0.2)


def wind_chimes(draw):
    """Metal tubes of a pentatonic scale, struck at random moments as the wind comes and goes."""
    pitch = draw.log("pitch", 700, 2200)
    decay = draw.log("decay", 0.4, 1.8)
    tubes = [pitch * 2 ** (step / 12) for step in (0, 2, 4, 7, 9, 12)]

    def chime():
        modes = multiples(draw.pick(tubes), 1, 2.76, 5.4)
        return ring(modes, [decay, decay / 2, decay / 5], [1, 0.5, 0.2], 2.5)

    rate = draw.log("strokes a second", 1.5, 9)
    return scatter(draw, chime, rate, 0.8) + 0.01 * draw.noise(1.5)


def singing_bowl(draw):
    """A gong or bowl: a dense set of beating low modes, struck once or twice, that dies slowly."""
    pitch = draw.log("pitch", 70, 330)
    decay = draw.log("decay", 0.9, 4)
    ratios = np.sort(draw.rng.uniform(1, 9, 18))
    bowl = struck_bell(draw, pitch, ratios, decay / ratios**0.6)
    n = len(bowl)
    bowl += 0.3 * harmonics(draw.rng, pitch, n, [1.0]) * strike(n, decay, 0.02)
    return repeat(draw, lambda: bowl, draw.log("strokes a second", 0.25, 1), jitter=0.1)


# --- blasts


def fireworks(draw):
    """A rocket whistles up, a boom comes, stars crackle; one to four of them."""
    boom = draw.log("boom time", 0.08, 0.4)
    edge = draw.log("boom edge", 1500, 6000)
    stars = draw.uniform("stars", 5, 45)
    pitch = draw.log("whistle", 900, 4500)

    def rocket():
        x = np.zeros(samples(3.0))
        rise = draw.vary(0.3, 1.0)
        place(x, rising_whistle(draw, pitch, samples(rise)), 0, draw.vary(0, 0.3))
        place(x, burst(draw.rng, 0.9, boom, 1.2, 30, edge, 0.002), rise)
        for _ in range(int(stars * draw.vary(0.5, 1.5))):
            star = burst(draw.rng, 0.03, 0.004)
            place(x, star, rise + draw.rng.exponential(0.4), draw.vary(0.1, 0.6))
        return x[: samples(rise + draw.vary(0.7, 2.0))]

    return sequence(draw, rocket, count=(1, 4), gap=(0.05, 0.4), start=(0, 0.2))


def rising_whistle(draw, pitch, n):
    """[n] a fluttering whistle that climbs by an octave up to a pitch."""
    flutter = 1 + 0.02 * wander(draw.rng, n, 200, -1, 1)
    return tone(pitch * curve(n, 0.5, 1) * flutter, n) * swell(n, 0.3, 0.1)


def gunshot(draw):
    """A blast with no onset at all, darkening as it dies; single shots or a burst.

    The place answers with an echo.
    """
    slope = draw.uniform("slope", 0.1, 1.3)
    edge = draw.log("high edge", 4500, 17_000)
    decay = draw.log("decay", 0.013, 0.09)
    rate = draw.log("shots a second", 0.8, 12)
    echo = draw.uniform("echo", 0.1, 0.6)

    def shot():
        blast = burst(draw.rng, 1.2, decay, slope, 40, edge, 0.0003)
        answer = burst(draw.rng, 1.2, draw.vary(0.1, 0.5), 1.2, 40, 2500, 0.01)
        return blast + echo * answer

    return repeat(draw, shot, rate, jitter=0.1, weaker=0.2, count=draw.count(1, 8))


def explosion(draw):
    """A deep blast: pressure front, then a long rumble with falling debris."""
    rumble = draw.log("rumble time", 0.35, 1.6)
    edge = draw.log("high edge", 450, 4500)
    at = draw.vary(0, 0.3 * draw.seconds)
    x = draw.silence()
    roar = draw.noise(1.7, 18, edge) * strike(draw.n, rumble, 0.005)
    place(x, roar, at, 2)
    front = draw.noise(0.3, 50, 9000)
    place(x, front * strike(draw.n, draw.vary(0.04, 0.12), 0.0005), at)
    pieces = draw.noise(0.3, 500, 6000) * draw.wander(30) ** 4
    debris = pieces * strike(draw.n, 1.0, 0.3)
    place(x, debris, at, draw.uniform("debris", 0, 0.4))
    return x


# --- tools


def hand_saw(draw):
    """Strokes to and fro: teeth rasp 60 to 200 times a second, the push louder than the pull."""
    strokes = draw.log("strokes a second", 1.1, 4.4)
    teeth = draw.log("teeth a second", 55, 220)
    low = draw.log("low edge", 450, 1600)
    high = draw.log("high edge", 4500, 13_000)
    turn = phase(strokes * draw.wander(2, 0.9, 1.1), draw.n)
    pull = draw.uniform("pull", 0.15, 0.85)
    push_or_pull = np.where(turn < 0.5, 1, pull)
    effort = np.sin(TAU * turn) ** 2 * push_or_pull
    rasp = 1 + 0.8 * tone(teeth * (0.7 + 0.4 * effort), draw.n)
    return draw.noise(0.2, low, high) * effort * rasp


def hammer(draw):
    """Blows on a nail: steel rings briefly, the wood thuds."""
    rate = draw.log("blows a second", 1.1, 4.5)
    steel = draw.log("steel", 1400, 4800)
    wood = draw.log("wood", 120, 500)
    decay = draw.log("decay", 0.015, 0.12)
    steel_decays = [decay, decay / 2, decay / 3]
    nail = ring(multiples(steel, 1, 1.53, 2.4), steel_decays, [0.6, 0.4, 0.3], 0.3)
    plank = ring(multiples(wood, 1, 1.8), [0.025, 0.015], [1, 0.5], 0.3)

    def blow():
        return nail + plank + burst(draw.rng, 0.3, 0.003, 0, 300, 9000)

    return repeat(draw, blow, rate, jitter=0.06, weaker=0.3)


def scissors(draw):
    """Blades: a rising metallic scrape that ends in a snip, one to four a second."""
    rate = draw.log("cuts a second", 0.8, 4.2)
    metal = draw.log("metal", 2500, 7500)
    snip = ring(multiples(metal, 1, 1.6), [0.006, 0.004], [1, 0.6], 0.05)

    def cut():
        n = samples(draw.vary(0.12, 0.25))
        blades = noise(draw.rng, n, 0, metal * 0.6, metal * 1.8)
        scrape = blades * wander(draw.rng, n, 150, 0.4, 1)
        return np.concatenate([0.4 * scrape * curve(n, 0.05, 0.4, 1), snip])

    return repeat(draw, cut, rate, jitter=0.12, weaker=0.4)


def zipper(draw):
    """Teeth 40 to 220 times a second, quicker and quicker; pulled once or to and fro."""
    speed = draw.log("teeth a second", 55, 260)
    low = draw.log("low edge", 1200, 3500)

    def pull():
        n = samples(draw.vary(0.3, 1.2))
        click = burst(draw.rng, 0.006, 0.002, 0, low, 13_000, 0.0003)
        rate = speed * curve(n, 0.5, draw.vary(0.9, 1.3), 1)
        teeth = np.convolve(pulses(rate, n), click)[:n]
        return teeth + 0.04 * noise(draw.rng, n, 0, 2000)

    return sequence(draw, pull, count=(1, 3), gap=(0.2, 1.2))


# --- paper, cameras, typewriters


def paper_crumple(draw):
    """Paper: hundreds of small buckling clicks a second, in handfuls."""
    rate = draw.log("clicks a second", 60, 350)
    low = draw.log("low edge", 700, 2800)

    def click():
        decay = draw.vary(0.0006, 0.003)
        return burst(draw.rng, 0.012, decay, 0, low * draw.vary(0.7, 1.4), 13_000, 0.0002)

    clicks = scatter(draw, click, rate, 1.3)
    handfuls = np.clip(draw.wander(4, -0.3, 1), 0, 1)
    return clicks * handfuls


def camera_shutter(draw):
    """Mirror up, shutter, mirror down: two or three clacks within a fifth of a second.

    Sometimes a burst.
    """
    metal = draw.log("metal", 900, 3500)
    exposure = draw.log("exposure", 0.04, 0.2)
    part = ring(multiples(metal, 1, 1.8), [0.008, 0.005], [1, 0.6], 0.05)

    def picture():
        x = np.zeros(samples(0.4))
        for at, gain in ((0, 1.0), (exposure, 0.8), (exposure * 1.4, 0.4)):
            clack = part + burst(draw.rng, 0.05, 0.005, 0.2, 400, 9000)
            place(x, clack, at, gain)
        return x

    return repeat(draw, picture, draw.log("a second", 0.5, 4), jitter=0.3)


def typewriter(draw):
    """Type bars: hard clacks with metal in them, 4 to 10 a second.

    The bell and the carriage at the line's end.
    """
    rate = draw.log("keys a second", 3.5, 10.5)
    metal = draw.log("metal", 900, 3000)
    bar = ring(multiples(metal, 1, 1.9), [0.014, 0.008], [1.2, 0.7], 0.1)
    x = draw.silence()

    def stroke():
        return bar + burst(draw.rng, 0.1, 0.006, 0.3, 300, 9000)

    if draw.chance(0.5):
        at = draw.vary(0.4, 0.8) * draw.seconds
        bell = ring([2400, 4900], [0.4, 0.2], [1, 0.4], 1.0)
        place(x, bell, at, 3)
        n = samples(0.5)
        rail = 0.8 * noise(draw.rng, n, 0.2, 600, 6000)
        place(x, rail * (0.6 + 0.4 * tone(45, n)), at + 0.3)
    return x + repeat(draw, stroke, rate, jitter=0.3, weaker=0.4)


# --- heat and water


def frying(draw):
    """Sizzling: water bursting in hot oil, thousands of tiny pops over a bright hiss."""
    rate = draw.log("pops a second", 80, 700)
    low = draw.log("low edge", 1500, 4500)

    def pop():
        decay = draw.vary(0.0004, 0.002)
        return burst(draw.rng, 0.008, decay, 0, low * draw.vary(0.7, 1.5), 17_000, 0.0002)

    hiss = draw.noise(-0.2, low, 15_000) * draw.wander(5, 0.7, 1)
    pops = scatter(draw, pop, rate, 1.5)
    return peak(pops) + draw.log("hiss", 0.03, 0.3) * hiss


def steam(draw):
    """Steam or gas let out under pressure: a loud bright hiss that starts at once and sinks."""
    low = draw.log("low edge", 700, 3500)
    decay = draw.log("decay", 0.5, 3)

    def jet():
        n = samples(draw.vary(0.8, 2.5))
        hiss = noise(draw.rng, n, -0.3, low, 17_000)
        return hiss * strike(n, decay, 0.03) * swell(n, 0.01, 0.1)

    return sequence(draw, jet, count=(1, 3), gap=(0.1, 0.8))


def toilet_flush(draw):
    """A rush of water that peaks after a second, gurgles and runs dry."""
    slope = draw.uniform("slope", 0.4, 1.2)
    edge = draw.log("high edge", 2500, 10_000)
    flow = curve(draw.n, 0.05, *draw.rng.uniform(0.8, 1, 2), 0.9, 0.6, 0.3, 0.15, 0.1)
    swallowing = np.abs(tone(draw.log("gurgle", 5, 14), draw.n))
    gurgle = low_pass(swallowing, 60)
    rush = draw.noise(slope, 120, edge) * flow * (0.7 + 0.3 * gurgle)
    return rush + 0.3 * stream(draw) * flow


# --- test signals


def white_noise(draw):
    """Hiss of an untuned radio: all frequencies equally."""
    return draw.noise(draw.uniform("slope", -0.3, 0.3))


def pure_tone(draw):
    """One sine, held or switched on and off."""
    pitch = draw.log("pitch", 130, 6500)
    rate = draw.log("beeps a second", 0.5, 4)
    steady = tone(pitch, draw.n)
    if draw.chance(0.6):
        return steady
    beeping = time(draw.n) * rate % 1 < 0.5
    return steady * gate(beeping, 60)
