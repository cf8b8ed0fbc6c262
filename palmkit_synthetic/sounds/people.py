"""Sounds that people make without words: throats (see `dsp.voice`), breath, hands and feet."""

from __future__ import annotations

from itertools import cycle

import numpy as np

from palmkit_synthetic.dsp import (
    SAMPLE_RATE,
    burst,
    contact,
    curve,
    cycles,
    duration,
    multiples,
    noise,
    normalize,
    peak,
    phase,
    place,
    repeat,
    ring,
    samples,
    scatter,
    sequence,
    strike,
    swell,
    tone,
    voice,
    wander,
)

# --- voices


def vowel(size: float, openness=1.0):
    """The resonances of an open mouth; size 1: a grown man, 1.2: a woman, 1.5: a child."""
    return [
        (700 * size * openness, 130, 1.0),
        (1300 * size, 200, 0.6),
        (2700 * size, 350, 0.3),
    ]


def baby_cry(draw):
    """Wails of 0.4 to 1.4 s that rise and fall round 330 to 600 Hz; gasps between them.

    Bright and partly hoarse.
    """
    pitch = draw.log("pitch", 310, 640)
    tract = draw.uniform("vocal tract", 0.8, 1.25)
    rough = draw.uniform("roughness", 0, 0.5) if draw.chance(0.4) else 0.0
    breath = draw.uniform("breath", 0.02, 0.25)
    tilt = draw.uniform("tilt", -0.9, -0.1)
    tremor = draw.uniform("tremor", 4, 9.5)

    def wail():
        n = samples(draw.vary(0.35, 1.4))
        height = pitch * draw.vary(0.85, 1.2)
        melody = curve(n, 0.75, 1.1, draw.vary(0.95, 1.3), draw.vary(0.8, 1.1), 0.65)
        glide = height * melody * (1 + 0.02 * tone(tremor, n))
        mouth = tract * curve(n, 0.6, 1, 1, 0.9, 0.6)
        formants = [
            (1150 * mouth, 250, 1.0),
            (2700 * mouth, 400, 0.8),
            (4900 * tract, 700, 0.5),
        ]
        sound = voice(draw.rng, glide, formants, tilt=tilt, jitter=0.02, breath=breath, rough=rough)
        cry = sound * swell(n, 0.12, 0.2)
        m = samples(0.25)
        drawn_breath = 0.04 * noise(draw.rng, m, 0, 1000, 5000) * swell(m, 0.5, 0.3)
        if draw.chance(0.4):
            return np.concatenate([cry, drawn_breath])
        return cry

    return sequence(draw, wail, count=(2, 7), gap=(0.05, 0.6))


def baby_laugh(draw):
    """Giggles: rows of short high 'he' sounds, squealing up at the end."""
    pitch = draw.log("pitch", 330, 650)
    tempo = draw.log("syllables a second", 4, 7)

    def giggle():
        return syllables(draw, pitch, 1.5, draw.count(3, 8), tempo, rise=0.03)

    return sequence(draw, giggle, count=(1, 4), gap=(0.1, 0.7))


def laugh(draw):
    """Bouts of 'ha-ha-ha', four to six a second, sinking in pitch and strength."""
    pitch = draw.log("pitch", 110, 430)
    size = draw.uniform("vocal tract", 0.95, 1.4)
    tempo = draw.log("syllables a second", 3.5, 6.5)
    rise = draw.uniform("drift", -0.07, 0.02)

    def bout():
        count = draw.count(3, 9)
        return syllables(draw, pitch, size, count, tempo * draw.vary(0.9, 1.1), rise)

    return sequence(draw, bout, count=(1, 4), gap=(0.1, 0.8))


def syllables(draw, pitch, size, count, tempo, rise):
    """ha-ha-ha: each a puff of breath and a short vowel, `tempo` of them a second.

    rise: the share by which the pitch climbs from one to the next.
    """
    x = np.zeros(samples((count + 1) / tempo))
    for k in range(count):
        n = samples(0.55 / tempo * draw.vary(0.8, 1.2))
        height = pitch * (1 + rise * k) * draw.vary(0.95, 1.05)
        glide = height * curve(n, 1.1, 0.9)
        sound = voice(draw.rng, glide, vowel(size), tilt=-0.2, jitter=0.02, breath=0.12)
        air = noise(draw.rng, n, 0.3, 800 * size, 4000)
        puff = air * swell(n, 0.4, 0.4) * 0.04
        softer = 1 - 0.06 * k
        place(x, sound * swell(n, 0.15, 0.5), (k + 0.4) / tempo, softer)
        place(x, puff, k / tempo)
    return x


def scream(draw):
    """A long shrill cry, near 1 kHz, hoarse."""
    pitch = draw.log("pitch", 600, 1500)
    rough = draw.uniform("roughness", 0.05, 0.6)

    def cry():
        n = samples(draw.vary(0.6, 2.0))
        glide = pitch * curve(n, 0.7, 1.1, 1, 0.85)
        sound = voice(draw.rng, glide, vowel(1.35), tilt=-0.9, jitter=0.03, breath=0.2, rough=rough)
        return sound * swell(n, 0.08, 0.25)

    return sequence(draw, cry, count=(1, 2), gap=(0.2, 0.8))


def crowd(draw):
    """Many voices at once, no word of any: vowels of every size at random moments."""
    density = draw.log("voices a second", 6, 40)
    size = draw.uniform("vocal tract", 1.0, 1.35)

    def babble():
        n = samples(draw.vary(0.12, 0.5))
        person = size * draw.vary(0.85, 1.15)
        formants = [
            (draw.vary(300, 800) * person, 120, 1.0),
            (draw.vary(900, 2200) * person, 200, 0.6),
        ]
        # From a man's 115 Hz at size 1 to a child's 320 Hz at size 1.5.
        height = 115 * person**2.5 * draw.vary(0.8, 1.3)
        glide = height * curve(n, 1, draw.vary(0.8, 1.3), 0.9)
        return voice(draw.rng, glide, formants, breath=0.15) * swell(n, 0.2, 0.4)

    return normalize(scatter(draw, babble, density, 0.6))


def children(draw):
    """A playground: high voices calling and squealing over one another."""
    density = draw.log("calls a second", 3, 14)
    pitch = draw.log("pitch", 280, 560)

    def call():
        n = samples(draw.vary(0.12, 0.7))
        height = pitch * draw.vary(0.75, 1.8)
        glide = height * curve(n, 1, draw.vary(0.8, 1.4), draw.vary(0.7, 1.1))
        mouth = vowel(1.5, curve(n, draw.vary(0.5, 1), draw.vary(0.7, 1.1)))
        sound = voice(draw.rng, glide, mouth, tilt=-0.3, jitter=0.015, breath=0.1)
        return sound * swell(n, 0.15, 0.3)

    return normalize(scatter(draw, call, density, 0.8))


# --- breath and throat


def sneeze(draw):
    """Ah-tchoo: a drawn breath (often voiced), a blast of noise with a shout, a hissing rest."""
    pitch = draw.log("pitch", 140, 620)
    size = draw.uniform("vocal tract", 0.95, 1.4)
    low = draw.log("blast low edge", 300, 2600)
    voiced = draw.uniform("shout", 0, 1)
    decay = draw.log("blast time", 0.045, 0.22)
    inhale = draw.uniform("inhalation", 0.04, 0.35)
    x = draw.silence()
    at = draw.vary(0, 0.3 * draw.seconds)
    for _ in range(1 if draw.chance(0.8) else 2):
        if draw.chance(0.7):
            breath = gasp(draw, pitch, size) * inhale
            place(x, breath, at)
            at += duration(breath) + draw.vary(0, 0.15)
        n = samples(draw.vary(0.15, 0.5))
        blast = sneeze_blast(draw, n, low, decay)
        shout = sneeze_shout(draw, n, pitch, size)
        cry = voiced * shout * swell(n, 0.05, 0.7)
        place(x, (1 - 0.7 * voiced) * blast + cry, at)
        hiss = noise(draw.rng, n, -0.3, 2500, 12_000)
        rest = hiss * strike(n, draw.vary(0.04, 0.15), 0.01)
        place(x, rest * draw.vary(0, 0.25), at + 0.7 * n / SAMPLE_RATE)
        at += n / SAMPLE_RATE + draw.vary(0.5, 1.3)
    return x


def sneeze_blast(draw, n, low, decay):
    """[n] the air of a sneeze that bursts out."""
    air = noise(draw.rng, n, 0, low, draw.vary(6000, 16_000))
    return peak(air * strike(n, decay, draw.vary(0.005, 0.03)))


def sneeze_shout(draw, n, pitch, size):
    """[n] the voice in a sneeze, which falls."""
    mouth = vowel(size, curve(n, 0.5, 1, 0.6))
    glide = pitch * curve(n, 1.3, 1, 0.6)
    return voice(draw.rng, glide, mouth, tilt=0.2, jitter=0.04)


def gasp(draw, pitch, size):
    """A sharply drawn breath that grows, with or without voice."""
    n = samples(draw.vary(0.2, 0.7))
    air = noise(draw.rng, n, 0.3, draw.vary(600, 1500), draw.vary(2500, 6000))
    if draw.chance(0.5):
        glide = pitch * curve(n, 0.8, 0.9, 1.1)
        air = 0.5 * air + 3 * voice(draw.rng, glide, vowel(size), breath=0.3)
    return 0.4 * air * curve(n, 0, 0.5, 1, 0.1)


def cough(draw):
    """One to five bursts: the glottis opens with a bang of noise, then a short hoarse vowel."""
    low = draw.log("low edge", 220, 800)
    high = draw.log("high edge", 2200, 8000)
    pitch = draw.log("pitch", 90, 330)
    voiced = draw.uniform("voice", 0.05, 0.9)
    decay = draw.log("burst time", 0.025, 0.11)
    size = draw.uniform("vocal tract", 0.95, 1.4)

    def one_cough():
        n = samples(draw.vary(0.2, 0.45))
        air = noise(draw.rng, n, 0.4, low, high)
        bang = peak(air * strike(n, decay, 0.004))
        glide = pitch * curve(n, 1.2, 0.8)
        throat = voice(draw.rng, glide, vowel(size), jitter=0.08, breath=0.3, rough=0.3)
        return bang + voiced * throat * strike(n, 0.08, 0.03)

    return sequence(draw, one_cough, count=(1, 6), gap=(0.05, 0.7))


def breathing(draw):
    """In and out: broad noise, two colours in turn, with soft starts."""
    low = draw.log("low edge", 220, 1000)
    high = draw.log("high edge", 1300, 6000)
    length = draw.log("length", 0.5, 1.6)
    out = draw.uniform("out", 0.5, 0.9)
    scales = cycle([out, 1.0])  # of the edges and of the loudness

    def breath():
        scale = next(scales)
        n = samples(length * draw.vary(0.85, 1.15))
        air = noise(draw.rng, n, 0.4, low * scale, high * scale)
        return air * swell(n, 0.4, 0.5) * scale

    return sequence(draw, breath, count=(2, 7), gap=(0.05, 0.5))


def snore(draw):
    """The soft palate flaps 25 to 75 times a second in the drawn breath.

    A quieter breath out may follow.
    """
    flap = draw.log("flap rate", 22, 80)
    edge = draw.log("high edge", 600, 2500)
    sharp = draw.uniform("sharpness", 2, 6)
    length = draw.log("length", 0.6, 1.7)

    def breath():
        n = samples(length * draw.vary(0.85, 1.15))
        turn = phase(flap * wander(draw.rng, n, 20, 0.9, 1.1), n)
        flaps = np.exp(-sharp * turn)
        rasp = noise(draw.rng, n, 0.8, 90, edge) * flaps * swell(n, 0.3, 0.3)
        out = 0.1 * noise(draw.rng, n, 0.5, 400, 3000) * swell(n, 0.3, 0.6)
        if draw.chance(0.5):
            return np.concatenate([rasp, out])
        return rasp

    return sequence(draw, breath, count=(1, 3), gap=(0.3, 1.0))


def sniff(draw):
    """Short sharp breaths through the nose: high noise that grows and stops, now and then wet."""
    low = draw.log("low edge", 900, 2800)
    high = draw.log("high edge", 3800, 13_000)
    length = draw.log("length", 0.12, 0.6)
    wet = draw.uniform("wetness", 0, 0.8)

    def pull():
        n = samples(length * draw.vary(0.8, 1.2))
        flutter = 1 - wet * (tone(draw.vary(30, 60), n) > 0.2)
        air = noise(draw.rng, n, 0, low, high)
        return air * flutter * curve(n, 0, 0.5, 1, 0.1)

    return sequence(draw, pull, count=(1, 6), gap=(0.08, 0.9))


def sigh(draw):
    """One long breath out, half voiced, sinking by half an octave."""
    pitch = draw.log("pitch", 95, 330)
    size = draw.uniform("vocal tract", 0.95, 1.4)
    breath = draw.uniform("breath", 0.5, 2.5)
    length = draw.uniform("length", 0.6, 2.0)

    def out():
        n = samples(length * draw.vary(0.85, 1.15))
        glide = pitch * curve(n, 1.2, 1, 0.7)
        sound = voice(draw.rng, glide, vowel(size, 0.9), tilt=0.3, breath=breath)
        return sound * curve(n, 0, 1, 0.6, 0.3, 0)

    return sequence(draw, out, count=(1, 2), gap=(0.5, 1.2))


def throat_clearing(draw):
    """Ahem: one to four hoarse scrapes at the bottom of the voice."""
    pitch = draw.log("pitch", 65, 180)
    size = draw.uniform("vocal tract", 0.85, 1.3)
    breath = draw.uniform("breath", 0.4, 1.1)
    rough = draw.uniform("roughness", 0.4, 0.9)

    def scrape():
        n = samples(draw.vary(0.2, 0.6))
        formants = [
            (480 * size, 150, 1.0),
            (1250 * size, 250, 0.7),
            (2700 * size, 400, 0.5),
        ]
        glide = pitch * curve(n, 1, 1.2, 1)
        sound = voice(draw.rng, glide, formants, tilt=-0.4, jitter=0.12, breath=breath, rough=rough)
        return sound * swell(n, 0.1, 0.3)

    return sequence(draw, scrape, count=(1, 4), gap=(0.04, 0.5))


def hiccup(draw):
    """A very short voiced gulp, cut off; every one or two seconds."""
    pitch = draw.log("pitch", 180, 520)
    size = draw.uniform("vocal tract", 1.0, 1.4)

    def hic():
        n = samples(draw.vary(0.07, 0.16))
        glide = pitch * curve(n, 0.8, 1.5)
        sound = voice(draw.rng, glide, vowel(size, 0.7), breath=0.3)
        return sound * swell(n, 0.1, 0.15)

    return repeat(draw, hic, draw.log("a second", 0.4, 1.2), jitter=0.2)


def drinking(draw):
    """Sips and gulps: a slurp of fluttering air, then a low bubble in the throat."""
    slurp_edge = draw.log("slurp edge", 1500, 5000)
    gulp = draw.log("gulp pitch", 130, 420)

    def sip():
        n = samples(draw.vary(0.2, 0.7))
        air = noise(draw.rng, n, 0.3, 600, slurp_edge) * wander(draw.rng, n, 60)
        slurp = air * curve(n, 0, 0.6, 1, 0.2)
        m = samples(0.15)
        rising = tone(gulp * curve(m, 1, 1.8), m)
        bubble = 3 * rising * swell(m, 0.2, 0.5)
        swallow = bubble + burst(draw.rng, 0.15, 0.02, 1, 100, 900)
        pause = np.zeros(samples(draw.vary(0.05, 0.3)))
        return np.concatenate([slurp, pause, swallow])

    return sequence(draw, sip, count=(1, 5), gap=(0.1, 0.8))


def whistling(draw):
    """A tune whistled with the lips: almost a pure tone, glides and vibrato, breath beside it."""
    pitch = draw.log("pitch", 750, 2900)
    pace = draw.uniform("notes a second", 1.5, 6)
    steps = draw.rng.integers(-5, 8, int(draw.seconds * pace) + 2)  # in semitones
    notes = np.repeat(2 ** (steps / 12), 3)  # held for two thirds of the time, then a glide
    vibrato = 1 + 0.008 * tone(draw.vary(4, 7), draw.n)
    glide = pitch * curve(draw.n, *notes) * vibrato
    loudness = np.clip(draw.wander(pace) * 2 - 0.3, 0, 1)
    breath = 0.04 * draw.noise(0, pitch * 0.7, pitch * 1.4)
    return tone(glide, draw.n) * loudness + breath


# --- hands, feet and the heart


def clapping(draw):
    """One pair of hands, one and a half to six claps a second: 1 to 2 kHz bursts of 10 ms."""
    rate = draw.log("claps a second", 1.4, 6.5)
    decay = draw.log("decay", 0.004, 0.022)
    low = draw.log("low edge", 450, 1300)
    high = draw.log("high edge", 2000, 6500)
    jitter = draw.uniform("jitter", 0.02, 0.15)
    return repeat(draw, lambda: clap(draw, low, high, decay), rate, jitter, weaker=0.4)


def clap(draw, low, high, decay):
    """Two palms shut in air: one burst of noise in a band that depends on how they are cupped."""
    return burst(draw.rng, 0.08, decay, 0, low * draw.vary(0.85, 1.2), high, 0.001)


def applause(draw):
    """A hall of clapping hands, dozens to some hundred claps a second; some call out."""
    rate = draw.log("claps a second", 30, 400)
    low = draw.log("low edge", 450, 1100)
    high = draw.log("high edge", 2500, 7000)
    claps = scatter(draw, lambda: clap(draw, low, high, 0.01), rate, 0.7)
    x = normalize(claps) * draw.wander(0.6, 0.5, 1)
    if draw.chance(0.4):
        return x + draw.vary(0, 0.5) * crowd(draw)
    return x


def finger_snap(draw):
    """A snap: a 2 ms crack of the finger on the palm, which rings as a small hollow."""
    pitch = draw.log("palm resonance", 1200, 3500)
    decay = draw.log("decay", 0.004, 0.016)
    hollow = ring(multiples(pitch, 1, 1.7), [decay, decay / 2], [1, 0.5], 0.1)

    def snap():
        return hollow + contact(draw.rng, len(hollow), 0.002)

    return repeat(draw, snap, draw.log("snaps a second", 0.6, 4), jitter=0.1, weaker=0.4)


def footsteps(draw):
    """Steps: heel and sole, a thud with a click, 1.3 to 3 a second; gravel or leaves rustle."""
    pace = draw.log("steps a second", 1.2, 3.3)
    decay = draw.log("decay", 0.012, 0.05)
    low = draw.log("low edge", 50, 320)
    high = draw.log("high edge", 1000, 8000)
    level = draw.uniform("rustle", 0, 0.6) if draw.chance(0.45) else 0.0

    def step():
        n = samples(0.22)
        foot = burst(draw.rng, 0.22, decay * draw.vary(0.8, 1.2), 0.6, low, high, 0.002)
        later = samples(draw.vary(0.05, 0.12))
        toe = np.roll(foot, later) * draw.vary(0.1, 0.5)
        rustle = level * noise(draw.rng, n, 0, 1500, 9000) * swell(n, 0.2, 0.7)
        return foot + toe + rustle

    return repeat(draw, step, pace, jitter=0.05, weaker=0.3)


def brushing(draw):
    """Brushing teeth: quick strokes to and fro, each a rush of high noise.

    The mouth changes its loudness.
    """
    rate = draw.log("strokes a second", 3, 9)
    low = draw.log("low edge", 900, 3000)
    to_and_fro = cycles(rate * draw.wander(2, 0.85, 1.15), draw.n)
    sharp = draw.uniform("sharpness", 0.7, 2.5)
    strokes = np.abs(np.sin(np.pi * to_and_fro)) ** sharp
    bristles = draw.noise(0, low, draw.log("high edge", 4500, 13_000))
    return bristles * strokes * draw.wander(1, 0.3, 1)


def heartbeat(draw):
    """Lub-dub: two dull thuds below 100 Hz, the second after a third of the beat."""
    rate = draw.log("beats a second", 0.85, 2.3)
    pitch = draw.log("pitch", 38, 75)
    lub = ring(multiples(pitch, 1, 1.5), [0.04, 0.03], [1, 0.6], 0.2)
    dub = ring(multiples(pitch, 1.3, 1.9), [0.03, 0.02], [0.7, 0.4], 0.2)
    beat = np.zeros(samples(0.5))
    place(beat, lub, 0)
    place(beat, dub, min(0.32, 0.35 / rate))
    beats = repeat(draw, lambda: beat, rate, jitter=0.03, weaker=0.15)
    return beats + 0.01 * draw.noise(1.5, 30, 500)
