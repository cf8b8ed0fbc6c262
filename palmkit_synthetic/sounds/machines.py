"""Engines, motors and signals: periodic pulses with harmonics, and the noise of what they move."""

from __future__ import annotations

import numpy as np

from palmkit_synthetic.dsp import (
    SAMPLE_RATE,
    TAU,
    band,
    burst,
    contact,
    curve,
    cycles,
    gate,
    low_pass,
    multiples,
    noise,
    normalize,
    overdrive,
    phase,
    place,
    repeat,
    ring,
    samples,
    saw,
    strike,
    time,
    tone,
)

# --- engines and vehicles


def helicopter(draw):
    """Rotor blades: 10 to 30 dull beats a second that chop broad noise; turbine whine.

    It comes and goes.
    """
    beats = draw.log("blade beats", 8, 32)
    sharp = draw.uniform("sharpness", 1.8, 9.5)
    slope = draw.uniform("slope", 0.4, 2.3)
    thump = draw.uniform("thump", 0, 1.3)
    turbine = draw.log("turbine pitch", 200, 2600)
    edge = draw.log("high edge", 280, 7500)
    beat = beats * (1 + 0.03 * draw.wander(0.5, -1, 1))
    turn = phase(beat, draw.n)
    air = draw.noise(slope, 20, edge)
    chopped = air * (np.exp(-sharp * turn) + draw.vary(0.02, 0.4))
    share = draw.vary(0.05, 0.2)
    thud = low_pass((turn < share) - 0.1, draw.vary(80, 400))
    whine_level = draw.vary(0, 0.25)
    swaying = 3 * tone(beat, draw.n)
    whine = whine_level * np.sin(TAU * turbine * time(draw.n) + swaying)
    hiss_level = draw.vary(0.05, 0.5)
    hiss = hiss_level * draw.noise(0.8, 100, draw.vary(2000, 12_000))
    x = normalize(chopped) + thump * normalize(thud) + whine + hiss
    return x * draw.wander(0.4, draw.vary(0.2, 0.9), 1)


def chainsaw(draw):
    """A small two-stroke engine at 70 to 240 Hz, revved and loaded; the chain rattles."""
    speed = draw.log("firing rate", 62, 260)
    drive = draw.uniform("distortion", 0.4, 3.2)
    low = draw.log("low edge", 70, 430)
    high = draw.log("high edge", 3500, 15_000)
    chain = draw.uniform("chain", 0.08, 0.7)
    pace = draw.uniform("pace", 0.4, 3.2)
    revs = draw.wander(pace, draw.vary(0.5, 0.95), 1)
    firing = speed * revs * draw.wander(80, 0.97, 1.03)
    exhaust = band(overdrive(two_stroke(firing, draw.n), drive), low, high)
    rattle = draw.noise(0, draw.vary(800, 2500), draw.vary(5000, 14_000))
    links = 1 + 0.5 * tone(firing, draw.n)
    return (normalize(exhaust) + chain * rattle * links) * revs ** draw.vary(0, 3)


def two_stroke(firing, n):
    """[n] the pulses of an engine whose every second firing is stronger."""
    return saw(firing, n) + 0.5 * saw(firing / 2, n)


def engine(draw):
    """Idling: 18 to 70 firings a second, each a puff of low noise, and the shaft's harmonics."""
    firing = draw.log("firing rate", 16, 75)
    edge = draw.log("high edge", 350, 4000)
    sharp = draw.uniform("sharpness", 1.8, 5.5)
    slope = draw.uniform("slope", 1.1, 2.3)
    rate = firing * draw.wander(1, 0.95, 1.05)
    strokes = np.exp(-sharp * phase(rate, draw.n))
    puffs = draw.noise(slope, 20, edge) * strokes
    partials = draw.rng.uniform(0, 0.8, 7) / np.arange(1, 8)
    shaft = draw.harmonics(rate, partials)
    ticks = np.exp(-12 * phase(rate / 2, draw.n))
    valves = 0.15 * draw.noise(0, 2000, 9000) * ticks
    return normalize(puffs) + shaft + valves


def motorcycle(draw):
    """Revving: firing rate runs up and down between 40 and 200 Hz, saturated, with gear changes."""
    top = draw.log("top rate", 55, 220)
    edge = draw.log("high edge", 900, 5500)
    turns = draw.count(4, 7)
    firing = top * curve(draw.n, *draw.rng.uniform(0.35, 1, turns))
    exhaust = overdrive(two_stroke(firing, draw.n), 3)
    return low_pass(exhaust, edge) * firing / top + 0.1 * draw.noise(1, 100, 6000)


def car_passing(draw):
    """A car drives by: tyre noise swells, brightens and fades.

    The engine's hum falls in pitch (Doppler).
    """
    width = draw.log("duration", 0.5, 1.8)
    moment = draw.vary(0.3, 0.7) * draw.seconds
    hum = draw.log("engine pitch", 55, 160)
    tyres = draw.log("tyre edge", 1200, 6000)
    offset = (time(draw.n) - moment) / width
    near = 1 / (1 + offset**2)
    pitch = hum * (1 - 0.06 * np.tanh(offset))  # 6%: a car at some 70 km/h
    motor = draw.harmonics(pitch, draw.rng.uniform(0.1, 0.6, 6))
    bright = near**2 * draw.noise(0.6, 400, tyres)
    dark = near * draw.noise(1.3, 60, 1500)
    return dark + bright + 0.3 * near * motor


def train(draw):
    """Wheels over rail joints: pairs of clacks at a steady pace over a rumble.

    Flanges squeal in curves.
    """
    pace = draw.log("joints a second", 0.8, 3.5)
    edge = draw.log("rumble edge", 700, 4500)
    clack_edge = draw.log("clack edge", 1200, 3500)
    squeal = draw.uniform("squeal", 0, 0.35)

    def clacks():
        n = samples(0.15)
        pair = np.zeros(samples(0.5))
        for at in (0.0, 0.12 / pace + 0.05):  # both axles of a bogie
            clack = 3 * noise(draw.rng, n, 0.5, 90, clack_edge) * strike(n, 0.03, 0.004)
            place(pair, clack, at)
        return pair

    rumble = draw.noise(1.6, 30, edge) * draw.wander(3, 0.8, 1)
    screech = tone(draw.log("squeal pitch", 900, 3500), draw.n)
    screech *= draw.wander(1) ** 3
    joints = repeat(draw, clacks, pace, jitter=0.03, weaker=0.3)
    return rumble + joints + squeal * screech


def train_horn(draw):
    """A locomotive's horn: a chord of three to five bright reeds in long blasts.

    Over rolling noise.
    """
    pitch = draw.log("pitch", 220, 420)
    edge = draw.log("high edge", 2000, 6500)
    ratios = draw.pick([(1, 1.26, 1.5), (1, 1.2, 1.5, 1.78), (1, 1.26, 1.68)])
    reeds = sum(saw(reed, draw.n) for reed in multiples(pitch, *ratios))
    chord = normalize(low_pass(overdrive(reeds, 1), edge))
    t = time(draw.n)
    start = draw.vary(0, 0.2) * draw.seconds
    since_blast = (t - start) % draw.vary(1.5, 3.5)
    blown = since_blast < draw.vary(0.9, 2.5)
    return chord * gate(blown & (t > start), 12) + 0.15 * draw.noise(1.6, 30, 2000)


def airplane(draw):
    """Flying over: a jet's broad roar or a propeller's drone that swells and dies.

    Its pitch sinks as it passes.
    """
    edge = draw.log("high edge", 700, 6500)
    slope = draw.uniform("slope", 0.7, 1.9)
    drone = draw.log("drone", 70, 950)
    propeller = draw.uniform("drone level", 0.05, 0.8)
    moment = draw.vary(0.2, 0.8) * draw.seconds
    width = draw.uniform("width", 0.9, 4.2)
    offset = (time(draw.n) - moment) / width
    near = np.exp(-(offset**2))
    pitch = drone * curve(draw.n, 1.15, 1.0, 0.85)
    hum = draw.harmonics(pitch, [1, 0.4, 0.2, 0.1])
    return (draw.noise(slope, 40, edge) + propeller * hum) * (0.15 + near)


# --- motors in the house and on the street


def vacuum_cleaner(draw):
    """A universal motor at 120 to 500 Hz with many harmonics, and rushing air.

    The nozzle changes the load.
    """
    pitch = draw.log("motor", 105, 540)
    edge = draw.log("high edge", 3500, 15_000)
    air = draw.uniform("air", 0.5, 2.0)
    load = draw.uniform("load", 0.005, 0.06)
    motor = pitch * (1 + load * draw.wander(1.2, -1, 1))
    whine = draw.harmonics(motor, draw.rng.uniform(0, 0.6, 9))
    return air * draw.noise(0.6, 130, edge) + whine


def hair_dryer(draw):
    """A small fan close by: a steady rush of air with a whine above it."""
    whine = draw.log("whine", 450, 1800)
    edge = draw.log("high edge", 3000, 10_000)
    level = draw.uniform("whine level", 0.1, 0.6)
    nozzle = draw.log("nozzle", 500, 2000)
    air = draw.noise(0.4, nozzle / 2, edge)
    air += draw.noise(0, nozzle * 0.8, nozzle * 1.3)
    return air + level * draw.harmonics(whine, [1, 0.5, 0.3])


def washing_machine(draw):
    """A drum that turns one to four times a second.

    Surging motor hum, slapping laundry, splashing water.
    """
    turns = draw.log("turns a second", 0.7, 4.2)
    edge = draw.log("high edge", 500, 3200)
    surge = draw.uniform("surge", 0.3, 0.95)
    splash = draw.uniform("splash", 0.05, 0.5)
    turning = tone(turns, draw.n)
    mains = draw.log("hum", 42, 120)
    hum = 0.5 * draw.harmonics(mains, [1, 0.5, 0.4, 0.2])
    falling = np.clip(-turning, 0, 1)  # water splashes while the drum comes down
    water = draw.noise(0.3, 800, 6000) * falling**3
    motor = draw.noise(1.6, 40, edge) * (1 + surge * turning)
    return motor + hum + splash * water


def drill(draw):
    """An electric drill: a motor with strong harmonics, switched on and pressed; the bit grinds."""
    pitch = draw.log("motor", 80, 380)
    grind = draw.uniform("grinding", 0.2, 1.1)
    pressed = draw.wander(2, 0.85, 1.08)
    finger = draw.wander(0.8)
    threshold = draw.pick([-1, -1, 0.35])  # -1: it runs all the time
    running = gate(finger > threshold, 8)
    partials = draw.rng.uniform(0.1, 1, 24) / np.arange(1, 25) ** 0.4
    whine = draw.harmonics(pitch * pressed * (0.3 + 0.7 * running), partials)
    return (normalize(whine) + grind * draw.noise(0, 1000, 9000)) * (0.02 + running)


def jackhammer(draw):
    """9 to 25 blows of steel on stone a second: a click with a short ring, over a compressor."""
    rate = draw.log("blows a second", 8, 27)
    edge = draw.log("high edge", 2600, 10_000)
    steel = draw.log("steel", 380, 3300)
    decay = draw.log("decay", 0.007, 0.02)

    def blow():
        stone = burst(draw.rng, 0.08, decay, 0.2, 80, edge, 0.001)
        return stone + ring([steel], [decay], [0.8], 0.08)

    blows = repeat(draw, blow, rate, jitter=0.04, weaker=0.2)
    return blows + 0.06 * draw.noise(0.8, 40, 6000)


def air_conditioner(draw):
    """A fan and a compressor: steady dark noise with mains hum."""
    edge = draw.log("high edge", 700, 6500)
    slope = draw.uniform("slope", 0.9, 2.1)
    mains = draw.pick([50, 60, 100, 120])
    hum = draw.harmonics(mains, draw.rng.uniform(0, 0.7, 5))
    fan = draw.noise(slope, 30, edge) * draw.wander(4, 0.93, 1)
    return fan + draw.uniform("hum", 0.1, 1) * hum


def sewing_machine(draw):
    """A needle going up and down 5 to 15 times a second.

    Clicks of metal in pairs, and a whirring motor.
    """
    rate = draw.log("stitches a second", 4.5, 16)
    metal = draw.log("metal", 1200, 4500)
    click = ring(multiples(metal, 1, 1.6), [0.006, 0.004], [1, 0.6], 0.05)
    down = repeat(draw, lambda: click, rate, jitter=0.02, weaker=0.2)
    up = repeat(draw, lambda: click, rate, jitter=0.02, weaker=0.2)
    whirr = draw.harmonics(rate * 12, draw.rng.uniform(0.1, 1, 8))
    return down + 0.5 * up + 0.15 * whirr + 0.1 * draw.noise(0.8)


def lawn_mower(draw):
    """A four-stroke engine near 50 firings a second under load; the blade chops broad noise."""
    firing = draw.log("firing rate", 38, 75)
    edge = draw.log("high edge", 2500, 9000)
    rate = firing * draw.wander(1, 0.95, 1.03)
    exhaust = low_pass(overdrive(saw(rate, draw.n), 2), 1800)
    blade = draw.noise(0.6, 150, edge) * (1 + 0.6 * tone(rate * 2, draw.n))
    return normalize(exhaust) + draw.uniform("blade", 0.4, 1.2) * blade


# --- signals


def siren(draw):
    """Wail, yelp or two-tone: a loud, distorted tone that sweeps or steps in 450 to 2000 Hz."""
    low = draw.log("low pitch", 420, 950)
    rate = draw.log("sweeps a second", 0.14, 5.5)
    high = low * draw.uniform("span", 1.3, 2.4)
    drive = draw.uniform("distortion", 0.4, 4.2)
    turn = (cycles(rate, draw.n) + draw.vary(0, 1)) % 1
    wail = low + (high - low) * (0.5 - 0.5 * np.cos(TAU * turn))
    first_half = phase(min(rate, 1.2), draw.n) < 0.5
    two_tone = np.where(first_half, low, low * 1.33)  # a fourth, as of many fire engines
    ramp = np.where(turn < 0.7, turn / 0.7, (1 - turn) / 0.3)
    rising = low + (high - low) * ramp
    pitch = draw.pick([wail, two_tone, rising])
    horn = overdrive(tone(pitch, draw.n), drive)
    return band(horn, 200, draw.log("high edge", 2500, 8500))


def car_horn(draw):
    """Two reeds a third or fourth apart, distorted and bright; one to four honks."""
    pitch = draw.log("pitch", 235, 560)
    edge = draw.log("high edge", 2200, 7500)
    interval = draw.pick([1.0, 1.19, 1.26, 1.33])
    reeds = saw(pitch, draw.n) + saw(pitch * interval, draw.n)
    pressed = draw.silence()
    at = draw.vary(0, 0.8)
    for _ in range(draw.count(1, 4)):
        length = draw.vary_log(0.15, 1.95)
        pressed[int(at * SAMPLE_RATE) : int((at + length) * SAMPLE_RATE)] = 1
        at += length + draw.vary(0.1, 0.6)
    return overdrive(band(reeds, 300, edge), 2) * gate(pressed, 60)


def car_alarm(draw):
    """A parked car's alarm: its horn pulsed once or twice a second, or quick electronic sweeps."""
    pitch = draw.log("pitch", 500, 1300)
    rate = draw.log("pulses a second", 1, 6)
    turn = phase(rate, draw.n)
    pulsed = overdrive(saw(pitch, draw.n), 2) * gate(turn < 0.5, 80)
    swept = overdrive(tone(pitch * (1 + 0.9 * turn), draw.n), 3)
    alarm = draw.pick([pulsed, swept])
    return band(alarm, 300, draw.log("high edge", 3000, 8000))


def reversing_beep(draw):
    """A lorry in reverse: one beep a second near 1 to 2 kHz, over a diesel's rumble."""
    pitch = draw.log("pitch", 850, 2300)
    rate = draw.log("beeps a second", 0.7, 2)
    share = draw.uniform("share", 0.35, 0.65)
    beeping = phase(rate, draw.n) < share
    beeps = overdrive(tone(pitch, draw.n), 2) * gate(beeping, 60)
    return beeps + draw.vary(0.05, 0.4) * draw.noise(1.6, 30, 1500)


def clock_tick(draw):
    """An escapement in a resonant case: clicks of a few ms, one to five a second.

    Often they differ in turn (tick, tock), or each is double.
    """
    pitch = draw.log("pitch", 800, 6500)
    decay = draw.log("decay", 0.0009, 0.022)
    is_usual = draw.chance(0.8)
    period = draw.pick([1.0, 0.5, 0.25, 0.2, 0.333]) if is_usual else draw.vary(0.2, 1)
    second = draw.uniform("tock", 0.55, 1)
    double = draw.chance(0.5)
    case = draw.log("case", 130, 750) if draw.chance(0.4) else 0.0
    plates = pitch * draw.rng.uniform(0.5, 3, 5)
    strokes = [tick(draw, plates * scale, decay, case) for scale in (1, second)]
    x = draw.silence()
    at = draw.vary(0, period)
    turn = 0
    while at < draw.seconds:
        place(x, strokes[turn], at, second**turn * draw.vary(0.85, 1))
        if double:
            place(x, strokes[turn], at + draw.vary(0.015, 0.04), 0.4)
        at += period * (1 + 0.01 * draw.rng.standard_normal())
        turn = 1 - turn
    return x + draw.vary(0, 0.003) * draw.noise(1)


def tick(draw, plates, decay, case):
    """One stroke of the escapement on its plates, and the case it stands in (its pitch, or 0)."""
    decays = decay * draw.rng.uniform(0.5, 2, 5)
    sound = ring(plates, decays, draw.rng.uniform(0.2, 1, 5), 0.15)
    sound += contact(draw.rng, len(sound), 0.002)
    if not case:
        return sound
    return sound + ring(multiples(case, 1, 1.7), [0.02, 0.015], [0.8, 0.4], 0.15)


def alarm_clock(draw):
    """Electronic beeps in groups of one to five, or the clapper of an old bell."""
    pitch = draw.log("pitch", 1300, 4500)
    beep = draw.log("beep", 0.035, 0.35)
    count = draw.count(1, 5)
    pause = draw.uniform("pause", 0.15, 1.1)
    if draw.chance(0.25):
        modes = multiples(pitch, 1, 1.5, 2.2)
        bell = ring(modes, [0.12, 0.08, 0.05], [1, 0.7, 0.5], 0.3)
        return repeat(draw, lambda: bell, draw.vary(12, 25), jitter=0.05, weaker=0.3)
    group = 2 * beep * count
    moment = time(draw.n) % (group + pause)
    beeping = (moment < group) & (moment % (2 * beep) < beep)
    wave = tone(pitch, draw.n)
    shaped = draw.pick([wave, np.sign(wave), overdrive(wave, 3)])
    return shaped * gate(beeping, 150)


def telephone(draw):
    """A bell or a warble: two pitches in turn, 12 to 28 times a second.

    One to two seconds on, then a pause.
    """
    first = draw.log("first pitch", 380, 1600)
    second = draw.log("second pitch", 450, 2400)
    warble = draw.uniform("warble", 11, 29)
    cadence = draw.uniform("cadence", 1.3, 4.2)
    turn = tone(warble, draw.n) > 0
    x = np.where(turn, tone(first, draw.n), tone(second, draw.n))
    if draw.chance(0.5):  # bells have more partials
        x = x + 0.4 * tone(first * 2.76, draw.n) * turn
        x = x + 0.3 * tone(second * 3.1, draw.n)
    moment = (time(draw.n) + draw.vary(0, cadence)) % cadence
    ringing = moment < cadence * draw.vary(0.35, 0.65)
    return x * gate(ringing, 80) + 0.002 * draw.noise()


def microwave_beep(draw):
    """Three to five slow pure beeps at the end of a hum."""
    pitch = draw.log("pitch", 900, 2600)
    length = draw.log("length", 0.2, 0.8)
    t = time(draw.n)
    start = draw.vary(0.1, 0.4) * draw.seconds
    beeping = (t > start) & ((t - start) % (1.8 * length) < length)
    mains = draw.pick([50, 60])
    hum = draw.harmonics(mains, [0.5, 1, 0.3, 0.4])
    hum += draw.noise(1.2, 60, 3000)
    beeps = tone(pitch, draw.n) * gate(beeping, 80)
    return beeps + draw.vary(0.05, 0.3) * hum * gate(t < start, 20)
