"""Sounds that people make without words: throats as in `dsp.voice`, breath as shaped noise, hands
and feet.
"""

from __future__ import annotations

import numpy as np

from palmkit_synthetic.dsp import (
    burst,
    curve,
    noise,
    normalize,
    peak,
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


def vowel(size: float, openness=1.0):
    """The resonances of an open mouth; size 1: a grown man, 1.2: a woman, 1.5: a child."""
    return [(700 * size * openness, 130, 1.0), (1300 * size, 200, 0.6), (2700 * size, 350, 0.3)]


def baby_cry(draw):
    """Wails of 0.4 to 1.4 s that rise and fall round 330 to 600 Hz, bright and partly hoarse; gasps
    between them.
    """
    pitch, tract = draw.log("pitch", 310, 640), draw.uniform("vocal tract", 0.8, 1.25)
    rough = draw.uniform("roughness", 0, 0.5) if draw.chance(0.4) else 0.0
    breath, tilt = draw.uniform("breath", 0.02, 0.25), draw.uniform("tilt", -0.9, -0.1)
    shake = draw.uniform("tremor", 4, 9.5)

    def wail():
        n = samples(draw.vary(0.35, 1.4))
        middle = pitch * draw.vary(0.85, 1.2)
        melody = curve(n, 0.75, 1.1, draw.vary(0.95, 1.3), draw.vary(0.8, 1.1), 0.65)
        glide = middle * melody * (1 + 0.02 * tone(shake, n))
        mouth = tract * curve(n, 0.6, 1, 1, 0.9, 0.6)
        formants = [(1150 * mouth, 250, 1.0), (2700 * mouth, 400, 0.8), (4900 * tract, 700, 0.5)]
        cry = voice(
            draw.rng, glide, formants, tilt=tilt, jitter=0.02, breath=breath, rough=rough
        ) * swell(n, 0.12, 0.2)
        m = samples(0.25)
        gasp = 0.04 * noise(draw.rng, m, 0, 1000, 5000) * swell(m, 0.5, 0.3)
        return np.concatenate([cry, gasp]) if draw.chance(0.4) else cry

    return sequence(draw, wail, (2, 7), (0.05, 0.6))


def baby_laugh(draw):
    """Giggles: rows of short high 'he' sounds, squealing up at the end."""
    pitch, tempo = draw.log("pitch", 330, 650), draw.log("syllables a second", 4, 7)

    def giggle():
        return syllables(draw, pitch, 1.5, draw.count(3, 8), tempo, rise=0.03)

    return sequence(draw, giggle, (1, 4), (0.1, 0.7))


def syllables(draw, pitch, size, count, tempo, rise=-0.05):
    """ha-ha-ha: each a puff of breath and a short vowel, at a tempo; the pitch climbs or sinks from
    one to the next.
    """
    x = np.zeros(samples((count + 1) / tempo))
    for k in range(count):
        n = samples(0.55 / tempo * draw.vary(0.8, 1.2))
        height = pitch * (1 + rise * k) * draw.vary(0.95, 1.05)
        vowels = voice(
            draw.rng, height * curve(n, 1.1, 0.9), vowel(size), tilt=-0.2, jitter=0.02, breath=0.12
        )
        puff = noise(draw.rng, n, 0.3, 800 * size, 4000) * swell(n, 0.4, 0.4) * 0.04
        place(x, vowels * swell(n, 0.15, 0.5), (k + 0.4) / tempo, 1 - 0.06 * k)
        place(x, puff, k / tempo)
    return x


def laugh(draw):
    """Bouts of 'ha-ha-ha', four to six a second, sinking in pitch and strength."""
    pitch, size = draw.log("pitch", 110, 430), draw.uniform("vocal tract", 0.95, 1.4)
    tempo, rise = draw.log("syllables a second", 3.5, 6.5), draw.uniform("drift", -0.07, 0.02)

    def bout():
        return syllables(draw, pitch, size, draw.count(3, 9), tempo * draw.vary(0.9, 1.1), rise)

    return sequence(draw, bout, (1, 4), (0.1, 0.8))


def sneeze(draw):
    """Ah-tchoo: a drawn breath (often voiced), a blast of noise with a shout, a hissing rest."""
    pitch, size = draw.log("pitch", 140, 620), draw.uniform("vocal tract", 0.95, 1.4)
    low, voiced = draw.log("blast low edge", 300, 2600), draw.uniform("shout", 0, 1)
    fall, inhale = draw.log("blast time", 0.045, 0.22), draw.uniform("inhalation", 0.04, 0.35)
    x, at = np.zeros(draw.n), draw.vary(0, 0.3 * draw.seconds)
    for _ in range(1 if draw.chance(0.8) else 2):
        if draw.chance(0.7):
            breath = gasp(draw, pitch, size) * inhale
            place(x, breath, at)
            at += len(breath) / 44_100 + draw.vary(0, 0.15)
        n = samples(draw.vary(0.15, 0.5))
        blast = peak(
            noise(draw.rng, n, 0, low, draw.vary(6000, 16_000))
            * strike(n, fall, draw.vary(0.005, 0.03))
        )
        mouth = vowel(size, curve(n, 0.5, 1, 0.6))
        shout = voice(draw.rng, pitch * curve(n, 1.3, 1, 0.6), mouth, tilt=0.2, jitter=0.04)
        place(x, (1 - 0.7 * voiced) * blast + voiced * shout * swell(n, 0.05, 0.7), at)
        hiss = noise(draw.rng, n, -0.3, 2500, 12_000) * strike(n, draw.vary(0.04, 0.15), 0.01)
        place(x, hiss * draw.vary(0, 0.25), at + 0.7 * n / 44_100)
        at += n / 44_100 + draw.vary(0.5, 1.3)
    return x


def gasp(draw, pitch, size):
    """A sharply drawn breath that grows, with or without voice."""
    n = samples(draw.vary(0.2, 0.7))
    air = noise(draw.rng, n, 0.3, draw.vary(600, 1500), draw.vary(2500, 6000))
    if draw.chance(0.5):
        air = 0.5 * air + 3 * voice(
            draw.rng, pitch * curve(n, 0.8, 0.9, 1.1), vowel(size), breath=0.3
        )
    return 0.4 * air * curve(n, 0, 0.5, 1, 0.1)


def cough(draw):
    """One to five bursts: the glottis opens with a bang of noise, then a short hoarse vowel."""
    low, high = draw.log("low edge", 220, 800), draw.log("high edge", 2200, 8000)
    pitch, voiced = draw.log("pitch", 90, 330), draw.uniform("voice", 0.05, 0.9)
    fall, size = draw.log("burst time", 0.025, 0.11), draw.uniform("vocal tract", 0.95, 1.4)

    def burst():
        n = samples(draw.vary(0.2, 0.45))
        bang = peak(noise(draw.rng, n, 0.4, low, high) * strike(n, fall, 0.004))
        throat = voice(
            draw.rng, pitch * curve(n, 1.2, 0.8), vowel(size), jitter=0.08, breath=0.3, rough=0.3
        )
        return bang + voiced * throat * strike(n, 0.08, 0.03)

    return sequence(draw, burst, (1, 6), (0.05, 0.7))


def breathing(draw):
    """In and out: broad noise, two colours in turn, with soft starts."""
    low, high = draw.log("low edge", 220, 1000), draw.log("high edge", 1300, 6000)
    length, turn = draw.log("length", 0.5, 1.6), [1.0, draw.uniform("out", 0.5, 0.9)]

    def breath():
        turn.reverse()
        n = samples(length * draw.vary(0.85, 1.15))
        return noise(draw.rng, n, 0.4, low * turn[0], high * turn[0]) * swell(n, 0.4, 0.5) * turn[0]

    return sequence(draw, breath, (2, 7), (0.05, 0.5))


def snore(draw):
    """The soft palate flaps 25 to 75 times a second in the drawn breath; a quieter breath out
    follows.
    """
    flap, edge = draw.log("flap rate", 22, 80), draw.log("high edge", 600, 2500)
    sharp, length = draw.uniform("sharpness", 2, 6), draw.log("length", 0.6, 1.7)

    def breath():
        n = samples(length * draw.vary(0.85, 1.15))
        flaps = np.exp(-sharp * (np.cumsum(flap * wander(draw.rng, n, 20, 0.9, 1.1)) / 44_100 % 1))
        rasp = noise(draw.rng, n, 0.8, 90, edge) * flaps * swell(n, 0.3, 0.3)
        out = 0.1 * noise(draw.rng, n, 0.5, 400, 3000) * swell(n, 0.3, 0.6)
        return np.concatenate([rasp, out]) if draw.chance(0.5) else rasp

    return sequence(draw, breath, (1, 3), (0.3, 1.0))


def sniff(draw):
    """Short sharp breaths through the nose: high noise that grows and stops, now and then wet."""
    low, high = draw.log("low edge", 900, 2800), draw.log("high edge", 3800, 13_000)
    length, wet = draw.log("length", 0.12, 0.6), draw.uniform("wetness", 0, 0.8)

    def pull():
        n = samples(length * draw.vary(0.8, 1.2))
        flutter = 1 - wet * (tone(draw.vary(30, 60), n) > 0.2)
        return noise(draw.rng, n, 0, low, high) * flutter * curve(n, 0, 0.5, 1, 0.1)

    return sequence(draw, pull, (1, 6), (0.08, 0.9))


def sigh(draw):
    """One long breath out, half voiced, sinking by half an octave."""
    pitch, size = draw.log("pitch", 95, 330), draw.uniform("vocal tract", 0.95, 1.4)
    breath, length = draw.uniform("breath", 0.5, 2.5), draw.uniform("length", 0.6, 2.0)

    def out():
        n = samples(length * draw.vary(0.85, 1.15))
        sound = voice(
            draw.rng, pitch * curve(n, 1.2, 1, 0.7), vowel(size, 0.9), tilt=0.3, breath=breath
        )
        return sound * curve(n, 0, 1, 0.6, 0.3, 0)

    return sequence(draw, out, (1, 2), (0.5, 1.2))


def throat_clearing(draw):
    """Ahem: one to four hoarse scrapes at the bottom of the voice."""
    pitch, size = draw.log("pitch", 65, 180), draw.uniform("vocal tract", 0.85, 1.3)
    breath, rough = draw.uniform("breath", 0.4, 1.1), draw.uniform("roughness", 0.4, 0.9)

    def scrape():
        n = samples(draw.vary(0.2, 0.6))
        formants = [(480 * size, 150, 1.0), (1250 * size, 250, 0.7), (2700 * size, 400, 0.5)]
        glide = pitch * curve(n, 1, 1.2, 1)
        return voice(
            draw.rng, glide, formants, tilt=-0.4, jitter=0.12, breath=breath, rough=rough
        ) * swell(n, 0.1, 0.3)

    return sequence(draw, scrape, (1, 4), (0.04, 0.5))


def scream(draw):
    """A long shrill cry, near 1 kHz, hoarse."""
    pitch, rough = draw.log("pitch", 600, 1500), draw.uniform("roughness", 0.05, 0.6)

    def cry():
        n = samples(draw.vary(0.6, 2.0))
        glide = pitch * curve(n, 0.7, 1.1, 1, 0.85)
        sound = voice(draw.rng, glide, vowel(1.35), tilt=-0.9, jitter=0.03, breath=0.2, rough=rough)
        return sound * swell(n, 0.08, 0.25)

    return sequence(draw, cry, (1, 2), (0.2, 0.8))


def hiccup(draw):
    """A very short voiced gulp, cut off; every one or two seconds."""
    pitch, size = draw.log("pitch", 180, 520), draw.uniform("vocal tract", 1.0, 1.4)

    def hic():
        n = samples(draw.vary(0.07, 0.16))
        return voice(draw.rng, pitch * curve(n, 0.8, 1.5), vowel(size, 0.7), breath=0.3) * swell(
            n, 0.1, 0.15
        )

    return repeat(draw, hic, draw.log("a second", 0.4, 1.2), 0.2)


def clapping(draw):
    """One pair of hands, one and a half to six claps a second: 1 to 2 kHz bursts of 10 ms."""
    rate, fall = draw.log("claps a second", 1.4, 6.5), draw.log("decay", 0.004, 0.022)
    low, high = draw.log("low edge", 450, 1300), draw.log("high edge", 2000, 6500)
    return repeat(
        draw, lambda: clap(draw, low, high, fall), rate, draw.uniform("jitter", 0.02, 0.15), 0.4
    )


def clap(draw, low, high, fall):
    """Two palms shut in air: one burst of noise in a band that depends on how they are cupped."""
    return burst(draw.rng, 0.08, fall, 0, low * draw.vary(0.85, 1.2), high, 0.001)


def applause(draw):
    """A hall of clapping hands, dozens to some hundred claps a second; some whistle or cheer."""
    rate = draw.log("claps a second", 30, 400)
    low, high = draw.log("low edge", 450, 1100), draw.log("high edge", 2500, 7000)
    x = normalize(scatter(draw, lambda: clap(draw, low, high, 0.01), rate, 0.7)) * wander(
        draw.rng, draw.n, 0.6, 0.5, 1
    )
    return x + draw.vary(0, 0.5) * crowd(draw) if draw.chance(0.4) else x


def crowd(draw):
    """Many voices at once, no word of any: vowels of every size at random moments."""
    density, size = draw.log("voices a second", 6, 40), draw.uniform("vocal tract", 1.0, 1.35)

    def babble():
        n = samples(draw.vary(0.12, 0.5))
        person = size * draw.vary(0.85, 1.15)
        formants = [
            (draw.vary(300, 800) * person, 120, 1.0),
            (draw.vary(900, 2200) * person, 200, 0.6),
        ]
        glide = 115 * person**2.5 * draw.vary(0.8, 1.3) * curve(n, 1, draw.vary(0.8, 1.3), 0.9)
        return voice(draw.rng, glide, formants, breath=0.15) * swell(n, 0.2, 0.4)

    return normalize(scatter(draw, babble, density, 0.6))


def children(draw):
    """A playground: high voices calling and squealing over one another."""
    density, pitch = draw.log("calls a second", 3, 14), draw.log("pitch", 280, 560)

    def call():
        n = samples(draw.vary(0.12, 0.7))
        glide = pitch * draw.vary(0.75, 1.8) * curve(n, 1, draw.vary(0.8, 1.4), draw.vary(0.7, 1.1))
        mouth = curve(n, draw.vary(0.5, 1), draw.vary(0.7, 1.1))
        return voice(
            draw.rng, glide, vowel(1.5, mouth), tilt=-0.3, jitter=0.015, breath=0.1
        ) * swell(n, 0.15, 0.3)

    return normalize(scatter(draw, call, density, 0.8))


def footsteps(draw):
    """Steps: heel and sole, a thud with a click, 1.3 to 3 a second; gravel or leaves rustle."""
    pace, fall = draw.log("steps a second", 1.2, 3.3), draw.log("decay", 0.012, 0.05)
    low, high = draw.log("low edge", 50, 320), draw.log("high edge", 1000, 8000)
    rustle = draw.uniform("rustle", 0, 0.6) if draw.chance(0.45) else 0.0

    def step():
        n = samples(0.22)
        foot = burst(draw.rng, 0.22, fall * draw.vary(0.8, 1.2), 0.6, low, high, 0.002)
        toe = np.roll(foot, samples(draw.vary(0.05, 0.12))) * draw.vary(0.1, 0.5)
        return foot + toe + rustle * noise(draw.rng, n, 0, 1500, 9000) * swell(n, 0.2, 0.7)

    return repeat(draw, step, pace, 0.05, 0.3)


def brushing(draw):
    """Brushing teeth: quick strokes to and fro, each a rush of high noise; the mouth changes its
    colour.
    """
    rate, low = draw.log("strokes a second", 3, 9), draw.log("low edge", 900, 3000)
    phase = np.cumsum(rate * wander(draw.rng, draw.n, 2, 0.85, 1.15)) / 44_100
    strokes = np.abs(np.sin(np.pi * phase)) ** draw.uniform("sharpness", 0.7, 2.5)
    bristles = noise(draw.rng, draw.n, 0, low, draw.log("high edge", 4500, 13_000))
    return bristles * strokes * wander(draw.rng, draw.n, 1, 0.3, 1)


def drinking(draw):
    """Sips and gulps: a slurp of fluttering air, then a low bubble in the throat."""
    slurp_edge, gulp = draw.log("slurp edge", 1500, 5000), draw.log("gulp pitch", 130, 420)

    def sip():
        n, m = samples(draw.vary(0.2, 0.7)), samples(0.15)
        air = (
            noise(draw.rng, n, 0.3, 600, slurp_edge)
            * wander(draw.rng, n, 60)
            * curve(n, 0, 0.6, 1, 0.2)
        )
        swallow = 3 * tone(gulp * curve(m, 1, 1.8), m) * swell(m, 0.2, 0.5) + burst(
            draw.rng, 0.15, 0.02, 1, 100, 900
        )
        return np.concatenate([air, np.zeros(samples(draw.vary(0.05, 0.3))), swallow])

    return sequence(draw, sip, (1, 5), (0.1, 0.8))


def finger_snap(draw):
    """A snap: a 2 ms crack of the finger on the palm, which rings as a small hollow."""
    pitch, decay = draw.log("palm resonance", 1200, 3500), draw.log("decay", 0.004, 0.016)

    def snap():
        hollow = ring([pitch, pitch * 1.7], [decay, decay / 2], [1, 0.5], 0.1)
        return hollow + 0.5 * draw.rng.standard_normal(len(hollow)) * strike(len(hollow), 0.002)

    return repeat(draw, snap, draw.log("snaps a second", 0.6, 4), 0.1, 0.4)


def whistling(draw):
    """A tune whistled with the lips: almost a pure tone, glides and vibrato, breath beside it."""
    pitch, pace = draw.log("pitch", 750, 2900), draw.uniform("notes a second", 1.5, 6)
    tune = curve(
        draw.n, *np.repeat(2 ** (draw.rng.integers(-5, 8, int(draw.seconds * pace) + 2) / 12), 3)
    )
    glide = pitch * tune * (1 + 0.008 * tone(draw.vary(4, 7), draw.n))
    loudness = np.clip(wander(draw.rng, draw.n, pace) * 2 - 0.3, 0, 1)
    return tone(glide, draw.n) * loudness + 0.04 * noise(
        draw.rng, draw.n, 0, pitch * 0.7, pitch * 1.4
    )


def heartbeat(draw):
    """Lub-dub: two dull thuds below 100 Hz, the second after a third of the beat."""
    rate, pitch = draw.log("beats a second", 0.85, 2.3), draw.log("pitch", 38, 75)

    def beat():
        x = np.zeros(samples(0.5))
        place(x, ring([pitch, pitch * 1.5], [0.04, 0.03], [1, 0.6], 0.2), 0)
        place(
            x,
            ring([pitch * 1.3, pitch * 1.9], [0.03, 0.02], [0.7, 0.4], 0.2),
            min(0.32, 0.35 / rate),
        )
        return x

    return repeat(draw, beat, rate, 0.03, 0.15) + 0.01 * noise(draw.rng, draw.n, 1.5, 30, 500)
