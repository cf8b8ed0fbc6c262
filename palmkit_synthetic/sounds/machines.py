"""Engines, motors and signals: periodic pulses with their harmonics, and the noise of what they
move.
"""

from __future__ import annotations

import numpy as np

from palmkit_synthetic.dsp import (
    SAMPLE_RATE,
    band,
    curve,
    cycles,
    gate,
    harmonics,
    low_pass,
    noise,
    normalize,
    place,
    repeat,
    ring,
    samples,
    saw,
    strike,
    time,
    tone,
    wander,
)


def helicopter(draw):
    """Rotor blades: 10 to 30 dull beats a second that chop broad noise; turbine whine.

    It comes and goes.
    """
    beats, sharp = draw.log("blade beats", 8, 32), draw.uniform("sharpness", 1.8, 9.5)
    slope, thump = draw.uniform("slope", 0.4, 2.3), draw.uniform("thump", 0, 1.3)
    turbine, edge = draw.log("turbine pitch", 200, 2600), draw.log("high edge", 280, 7500)
    beat = beats * (1 + 0.03 * wander(draw.rng, draw.n, 0.5, -1, 1))
    phase = cycles(beat, draw.n) % 1
    chopped = noise(draw.rng, draw.n, slope, 20, edge) * (
        np.exp(-sharp * phase) + draw.vary(0.02, 0.4)
    )
    thud = low_pass((phase < draw.vary(0.05, 0.2)) - 0.1, draw.vary(80, 400))
    whine = draw.vary(0, 0.25) * np.sin(2 * np.pi * turbine * time(draw.n) + 3 * tone(beat, draw.n))
    hiss = draw.vary(0.05, 0.5) * noise(draw.rng, draw.n, 0.8, 100, draw.vary(2000, 12_000))
    return (normalize(chopped) + thump * normalize(thud) + whine + hiss) * wander(
        draw.rng, draw.n, 0.4, draw.vary(0.2, 0.9), 1
    )


def chainsaw(draw):
    """A small two-stroke engine at 70 to 240 Hz, revved and loaded, through distortion, with the
    chain's rattle.
    """
    speed, drive = draw.log("firing rate", 62, 260), draw.uniform("drive", 0.4, 3.2)
    low, high = draw.log("low edge", 70, 430), draw.log("high edge", 3500, 15_000)
    chain, pace = draw.uniform("chain", 0.08, 0.7), draw.uniform("pace", 0.4, 3.2)
    revs = wander(draw.rng, draw.n, pace, draw.vary(0.5, 0.95), 1)
    firing = speed * revs * wander(draw.rng, draw.n, 80, 0.97, 1.03)
    engine = band(np.tanh(drive * (saw(firing, draw.n) + 0.5 * saw(firing / 2, draw.n))), low, high)
    rattle = noise(draw.rng, draw.n, 0, draw.vary(800, 2500), draw.vary(5000, 14_000))
    return (
        normalize(engine) + chain * rattle * (1 + 0.5 * tone(firing, draw.n))
    ) * revs ** draw.vary(0, 3)


def engine(draw):
    """Idling: 18 to 70 firings a second, each a puff of low noise, and the shaft's harmonics."""
    firing, edge = draw.log("firing rate", 16, 75), draw.log("high edge", 350, 4000)
    sharp, slope = draw.uniform("sharpness", 1.8, 5.5), draw.uniform("slope", 1.1, 2.3)
    rate = firing * wander(draw.rng, draw.n, 1, 0.95, 1.05)
    puffs = normalize(
        noise(draw.rng, draw.n, slope, 20, edge) * np.exp(-sharp * (cycles(rate, draw.n) % 1))
    )
    shaft = harmonics(draw.rng, rate, draw.n, draw.rng.uniform(0, 0.8, 7) / np.arange(1, 8))
    tick = (
        0.15 * noise(draw.rng, draw.n, 0, 2000, 9000) * np.exp(-12 * (cycles(rate / 2, draw.n) % 1))
    )
    return puffs + shaft + tick


def motorcycle(draw):
    """Revving: firing rate runs up and down between 40 and 200 Hz, saturated, with gear changes."""
    top, edge = draw.log("top rate", 55, 220), draw.log("high edge", 900, 5500)
    firing = top * curve(draw.n, *draw.rng.uniform(0.35, 1, draw.count(4, 7)))
    exhaust = np.tanh(3 * (saw(firing, draw.n) + 0.5 * saw(firing / 2, draw.n)))
    return low_pass(exhaust, edge) * firing / top + 0.1 * noise(draw.rng, draw.n, 1, 100, 6000)


def car_passing(draw):
    """A car drives by: tyre noise that swells, brightens and fades, the engine's hum falling in
    pitch (Doppler).
    """
    width, moment = draw.log("duration", 0.5, 1.8), draw.vary(0.3, 0.7) * draw.seconds
    hum, tyres = draw.log("engine pitch", 55, 160), draw.log("tyre edge", 1200, 6000)
    offset = (time(draw.n) - moment) / width
    near = 1 / (1 + offset**2)
    pitch = hum * (1 - 0.06 * np.tanh(offset))
    motor = harmonics(draw.rng, pitch, draw.n, draw.rng.uniform(0.1, 0.6, 6))
    bright = near**2 * noise(draw.rng, draw.n, 0.6, 400, tyres)
    return near * noise(draw.rng, draw.n, 1.3, 60, 1500) + bright + 0.3 * near * motor


def train(draw):
    """Wheels over rail joints: pairs of clacks at a steady pace over a rumble; flanges squeal in
    curves.
    """
    pace, edge = draw.log("joints a second", 0.8, 3.5), draw.log("rumble edge", 700, 4500)
    clack_edge, squeal = draw.log("clack edge", 1200, 3500), draw.uniform("squeal", 0, 0.35)

    def clacks():
        n, pair = samples(0.15), np.zeros(samples(0.5))
        for at in (0.0, 0.12 / pace + 0.05):
            place(pair, 3 * noise(draw.rng, n, 0.5, 90, clack_edge) * strike(n, 0.03, 0.004), at)
        return pair

    rumble = noise(draw.rng, draw.n, 1.6, 30, edge) * wander(draw.rng, draw.n, 3, 0.8, 1)
    screech = tone(draw.log("squeal pitch", 900, 3500), draw.n) * wander(draw.rng, draw.n, 1) ** 3
    return rumble + repeat(draw, clacks, pace, 0.03, 0.3) + squeal * screech


def train_horn(draw):
    """A locomotive's horn: a chord of three to five bright reeds, one or two long blasts, over
    rolling noise.
    """
    pitch, bright = draw.log("pitch", 220, 420), draw.log("high edge", 2000, 6500)
    ratios = draw.pick([(1, 1.26, 1.5), (1, 1.2, 1.5, 1.78), (1, 1.26, 1.68)])
    chord = normalize(
        low_pass(np.tanh(sum(saw(pitch * ratio, draw.n) for ratio in ratios)), bright)
    )
    t, start = time(draw.n), draw.vary(0, 0.2) * draw.seconds
    blown = ((t - start) % draw.vary(1.5, 3.5)) < draw.vary(0.9, 2.5)
    return chord * gate(blown & (t > start), 12) + 0.15 * noise(draw.rng, draw.n, 1.6, 30, 2000)


def airplane(draw):
    """Flying over: a jet's broad roar or a propeller's drone that swells and dies; its pitch sinks
    as it passes.
    """
    edge, slope = draw.log("high edge", 700, 6500), draw.uniform("slope", 0.7, 1.9)
    drone, propeller = draw.log("drone", 70, 950), draw.uniform("drone level", 0.05, 0.8)
    nearness = np.exp(
        -(
            ((time(draw.n) - draw.vary(0.2, 0.8) * draw.seconds) / draw.uniform("width", 0.9, 4.2))
            ** 2
        )
    )
    hum = harmonics(draw.rng, drone * curve(draw.n, 1.15, 1.0, 0.85), draw.n, [1, 0.4, 0.2, 0.1])
    return (noise(draw.rng, draw.n, slope, 40, edge) + propeller * hum) * (0.15 + nearness)


def vacuum_cleaner(draw):
    """A universal motor at 120 to 500 Hz with many harmonics, and rushing air; the nozzle changes
    the load.
    """
    pitch, edge = draw.log("motor", 105, 540), draw.log("high edge", 3500, 15_000)
    air, load = draw.uniform("air", 0.5, 2.0), draw.uniform("load", 0.005, 0.06)
    motor = pitch * (1 + load * wander(draw.rng, draw.n, 1.2, -1, 1))
    whine = harmonics(draw.rng, motor, draw.n, draw.rng.uniform(0, 0.6, 9))
    return air * noise(draw.rng, draw.n, 0.6, 130, edge) + whine


def hair_dryer(draw):
    """A small fan close by: a steady rush of air with a whine above it."""
    whine, edge = draw.log("whine", 450, 1800), draw.log("high edge", 3000, 10_000)
    level, resonance = draw.uniform("whine level", 0.1, 0.6), draw.log("nozzle", 500, 2000)
    air = noise(draw.rng, draw.n, 0.4, resonance / 2, edge)
    air += noise(draw.rng, draw.n, 0, resonance * 0.8, resonance * 1.3)
    return air + level * harmonics(draw.rng, whine, draw.n, [1, 0.5, 0.3])


def washing_machine(draw):
    """A drum that turns one to four times a second: surging motor hum, slapping laundry, splashing
    water.
    """
    turns, edge = draw.log("turns a second", 0.7, 4.2), draw.log("high edge", 500, 3200)
    surge, splash = draw.uniform("surge", 0.3, 0.95), draw.uniform("splash", 0.05, 0.5)
    turning = tone(turns, draw.n)
    hum = 0.5 * harmonics(draw.rng, draw.log("hum", 42, 120), draw.n, [1, 0.5, 0.4, 0.2])
    water = noise(draw.rng, draw.n, 0.3, 800, 6000) * np.clip(tone(turns, draw.n) * -1, 0, 1) ** 3
    return noise(draw.rng, draw.n, 1.6, 40, edge) * (1 + surge * turning) + hum + splash * water


def drill(draw):
    """An electric drill: a motor with strong harmonics that is switched on and pressed, and the
    grinding bit.
    """
    pitch, grind = draw.log("motor", 80, 380), draw.uniform("grinding", 0.2, 1.1)
    pressed = wander(draw.rng, draw.n, 2, 0.85, 1.08)
    running = gate(wander(draw.rng, draw.n, 0.8) > draw.pick([-1, -1, 0.35]), 8)
    partials = draw.rng.uniform(0.1, 1, 24) / np.arange(1, 25) ** 0.4
    whine = harmonics(draw.rng, pitch * pressed * (0.3 + 0.7 * running), draw.n, partials)
    return (normalize(whine) + grind * noise(draw.rng, draw.n, 0, 1000, 9000)) * (0.02 + running)


def jackhammer(draw):
    """9 to 25 blows of steel on stone a second: a click with a short ring, over a compressor."""
    rate, edge = draw.log("blows a second", 8, 27), draw.log("high edge", 2600, 10_000)
    steel, fall = draw.log("steel", 380, 3300), draw.log("decay", 0.007, 0.02)

    def blow():
        n = samples(0.08)
        return noise(draw.rng, n, 0.2, 80, edge) * strike(n, fall, 0.001) + ring(
            [steel], [fall], [0.8], 0.08
        )

    return repeat(draw, blow, rate, 0.04, 0.2) + 0.06 * noise(draw.rng, draw.n, 0.8, 40, 6000)


def air_conditioner(draw):
    """A fan and a compressor: steady dark noise with mains hum."""
    edge, slope = draw.log("high edge", 700, 6500), draw.uniform("slope", 0.9, 2.1)
    hum = harmonics(draw.rng, draw.pick([50, 60, 100, 120]), draw.n, draw.rng.uniform(0, 0.7, 5))
    fan = noise(draw.rng, draw.n, slope, 30, edge) * wander(draw.rng, draw.n, 4, 0.93, 1)
    return fan + draw.uniform("hum", 0.1, 1) * hum


def sewing_machine(draw):
    """A needle going up and down 5 to 15 times a second: clicks of metal in pairs, and a whirring
    motor.
    """
    rate, metal = draw.log("stitches a second", 4.5, 16), draw.log("metal", 1200, 4500)
    click = ring([metal, metal * 1.6], [0.006, 0.004], [1, 0.6], 0.05)
    down, up = (repeat(draw, lambda: click, rate, 0.02, 0.2) for _ in range(2))
    whirr = 0.15 * harmonics(draw.rng, rate * 12, draw.n, draw.rng.uniform(0.1, 1, 8))
    return down + 0.5 * up + whirr + 0.1 * noise(draw.rng, draw.n, 0.8)


def lawn_mower(draw):
    """A four-stroke engine near 50 firings a second under load, with the blade's whirl chopping
    broad noise.
    """
    firing, edge = draw.log("firing rate", 38, 75), draw.log("high edge", 2500, 9000)
    rate = firing * wander(draw.rng, draw.n, 1, 0.95, 1.03)
    exhaust = low_pass(np.tanh(2 * saw(rate, draw.n)), 1800)
    blade = noise(draw.rng, draw.n, 0.6, 150, edge) * (1 + 0.6 * tone(rate * 2, draw.n))
    return normalize(exhaust) + draw.uniform("blade", 0.4, 1.2) * blade


def siren(draw):
    """Wail, yelp or two-tone: a loud, distorted tone that sweeps or steps in 450 to 2000 Hz."""
    low, rate = draw.log("low pitch", 420, 950), draw.log("sweeps a second", 0.14, 5.5)
    high, drive = low * draw.uniform("span", 1.3, 2.4), draw.uniform("drive", 0.4, 4.2)
    phase = (cycles(rate, draw.n) + draw.vary(0, 1)) % 1
    wail = low + (high - low) * (0.5 - 0.5 * np.cos(2 * np.pi * phase))
    two_tone = np.where(cycles(min(rate, 1.2), draw.n) % 1 < 0.5, low, low * 1.33)
    rising = low + (high - low) * np.where(phase < 0.7, phase / 0.7, (1 - phase) / 0.3)
    horn = np.tanh(drive * tone(draw.pick([wail, two_tone, rising]), draw.n))
    return band(horn, 200, draw.log("high edge", 2500, 8500))


def car_horn(draw):
    """Two reeds a third or fourth apart, distorted and bright; one to four honks."""
    pitch, edge = draw.log("pitch", 235, 560), draw.log("high edge", 2200, 7500)
    reeds = saw(pitch, draw.n) + saw(pitch * draw.pick([1.0, 1.19, 1.26, 1.33]), draw.n)
    on, at = np.zeros(draw.n), draw.vary(0, 0.8)
    for _ in range(draw.count(1, 4)):
        length = 0.15 * 13 ** draw.vary(0, 1)
        on[int(at * SAMPLE_RATE) : int((at + length) * SAMPLE_RATE)] = 1
        at += length + draw.vary(0.1, 0.6)
    return np.tanh(2 * band(reeds, 300, edge)) * gate(on, 60)


def car_alarm(draw):
    """A parked car's alarm: its horn pulsed once or twice a second, or quick electronic sweeps."""
    pitch, rate = draw.log("pitch", 500, 1300), draw.log("pulses a second", 1, 6)
    phase = cycles(rate, draw.n) % 1
    pulsed = np.tanh(2 * saw(pitch, draw.n)) * gate(phase < 0.5, 80)
    swept = np.tanh(3 * tone(pitch * (1 + 0.9 * phase), draw.n))
    return band(draw.pick([pulsed, swept]), 300, draw.log("high edge", 3000, 8000))


def reversing_beep(draw):
    """A lorry in reverse: one beep a second near 1 to 2 kHz, over a diesel's rumble."""
    pitch, rate = draw.log("pitch", 850, 2300), draw.log("beeps a second", 0.7, 2)
    beep = np.tanh(2 * tone(pitch, draw.n)) * gate(
        cycles(rate, draw.n) % 1 < draw.uniform("share", 0.35, 0.65), 60
    )
    return beep + draw.vary(0.05, 0.4) * noise(draw.rng, draw.n, 1.6, 30, 1500)


def clock_tick(draw):
    """An escapement: clicks of a few ms, often in pairs (tick, tock), one to five a second, in a
    resonant case.
    """
    pitch, decay = draw.log("pitch", 800, 6500), draw.log("decay", 0.0009, 0.022)
    period = draw.pick([1.0, 0.5, 0.25, 0.2, 0.333]) if draw.chance(0.8) else draw.vary(0.2, 1)
    second, double = draw.uniform("tock", 0.55, 1), draw.chance(0.5)
    case = draw.log("case", 130, 750) if draw.chance(0.4) else 0.0
    modes = pitch * draw.rng.uniform(0.5, 3, 5)
    ticks = [tick(draw, modes * scale, decay, case) for scale in (1, second)]
    x, at, k = np.zeros(draw.n), draw.vary(0, period), 0
    while at < draw.seconds:
        place(x, ticks[k % 2], at, second ** (k % 2) * draw.vary(0.85, 1))
        if double:
            place(x, ticks[k % 2], at + draw.vary(0.015, 0.04), 0.4)
        at, k = at + period * (1 + 0.01 * draw.rng.standard_normal()), k + 1
    return x + draw.vary(0, 0.003) * noise(draw.rng, draw.n, 1)


def tick(draw, modes, decay, case):
    """One stroke of the escapement on its plates, and the case it stands in."""
    sound = ring(modes, decay * draw.rng.uniform(0.5, 2, 5), draw.rng.uniform(0.2, 1, 5), 0.15)
    sound += 0.5 * draw.rng.standard_normal(len(sound)) * strike(len(sound), 0.002)
    return sound + ring([case, case * 1.7], [0.02, 0.015], [0.8, 0.4], 0.15) if case else sound


def alarm_clock(draw):
    """Electronic beeps in groups of one to five, or the clapper of an old bell."""
    pitch, beep = draw.log("pitch", 1300, 4500), draw.log("beep", 0.035, 0.35)
    group, pause = draw.count(1, 5), draw.uniform("pause", 0.15, 1.1)
    moment = time(draw.n) % (2 * beep * group + pause)
    on = gate((moment < 2 * beep * group) & (moment % (2 * beep) < beep), 150)
    if draw.chance(0.25):
        bell = ring([pitch, pitch * 1.5, pitch * 2.2], [0.12, 0.08, 0.05], [1, 0.7, 0.5], 0.3)
        return repeat(draw, lambda: bell, draw.vary(12, 25), 0.05, 0.3)
    wave = tone(pitch, draw.n)
    return draw.pick([wave, np.sign(wave), np.tanh(3 * wave)]) * on


def telephone(draw):
    """A bell or a warble: two pitches in turn, 12 to 28 times a second, one to two seconds on and a
    pause.
    """
    first, second = draw.log("first pitch", 380, 1600), draw.log("second pitch", 450, 2400)
    warble, cadence = draw.uniform("warble", 11, 29), draw.uniform("cadence", 1.3, 4.2)
    turn = tone(warble, draw.n) > 0
    x = np.where(turn, tone(first, draw.n), tone(second, draw.n))
    if draw.chance(0.5):  # bells have more partials
        x = x + 0.4 * tone(first * 2.76, draw.n) * turn + 0.3 * tone(second * 3.1, draw.n)
    on = (time(draw.n) + draw.vary(0, cadence)) % cadence < cadence * draw.vary(0.35, 0.65)
    return x * gate(on, 80) + 0.002 * noise(draw.rng, draw.n)


def microwave_beep(draw):
    """Three to five slow pure beeps at the end of a hum."""
    pitch, length = draw.log("pitch", 900, 2600), draw.log("length", 0.2, 0.8)
    t, start = time(draw.n), draw.vary(0.1, 0.4) * draw.seconds
    beeping = (t > start) & ((t - start) % (1.8 * length) < length)
    hum = harmonics(draw.rng, draw.pick([50, 60]), draw.n, [0.5, 1, 0.3, 0.4]) + noise(
        draw.rng, draw.n, 1.2, 60, 3000
    )
    return tone(pitch, draw.n) * gate(beeping, 80) + draw.vary(0.05, 0.3) * hum * gate(
        t < start, 20
    )
