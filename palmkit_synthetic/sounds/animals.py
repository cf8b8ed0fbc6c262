"""Animals: mostly throats (pulses through moving resonances), some rubbing wings.

See `dsp.voice` for the model.
"""

from __future__ import annotations

import numpy as np

from palmkit_synthetic.dsp import (
    SAMPLE_RATE,
    band,
    curve,
    gate,
    harmonics,
    noise,
    normalize,
    place,
    repeat,
    samples,
    sequence,
    strike,
    swell,
    time,
    tone,
    voice,
    wander,
)


def dog(draw):
    """Short barks: pitch and mouth open and shut within 0.1 to 0.3 s; the larger the dog, the lower
    and hoarser.
    """
    size, noisy = draw.uniform("size", 0, 1), draw.uniform("breath", 0.05, 0.9)
    pitch = draw.log("pitch", 280, 950) * (1 - 0.55 * size)
    rough, tilt = draw.uniform("roughness", 0, 0.6), draw.uniform("tilt", -0.6, 0.3)

    def bark():
        n = samples(draw.vary(0.08, 0.3))
        glide = (
            pitch
            * draw.vary(0.9, 1.1)
            * curve(n, draw.vary(0.6, 0.9), draw.vary(1.1, 1.5), 1, draw.vary(0.5, 0.8))
        )
        mouth = (1.35 - 0.6 * size) * curve(n, 400, 1000, 550)
        formants = [
            (mouth, 200, 1.0),
            (mouth * draw.vary(1.8, 2.4), 300, 0.7),
            (3300 - 700 * size, 500, 0.3),
        ]
        sound = voice(draw.rng, glide, formants, tilt=tilt, jitter=0.06, breath=noisy, rough=rough)
        return sound * swell(n, draw.vary(0.05, 0.15), draw.vary(0.3, 0.6))

    barks = sequence(draw, bark, (1, 9), (0.05, 0.9))
    return barks + growl(draw, pitch / 5, size) if draw.chance(0.15) else barks


def growl(draw, pitch, size):
    """A low rough rumble under the barks."""
    n = samples(draw.vary(0.6, 2.0))
    throat = [(550 - 200 * size, 200, 1.0), (1300, 300, 0.5)]
    rumble = voice(
        draw.rng, pitch * curve(n, 1, 1.15, 0.95), throat, jitter=0.1, breath=0.5, rough=0.5
    )
    x = np.zeros(draw.n)
    place(x, rumble * swell(n, 0.3, 0.3), draw.vary(0, 2), draw.vary(0.1, 0.4))
    return x


def rooster(draw):
    """Cock-a-doodle-doo: three short rising notes, then a long one that falls; bright, a little
    hoarse at its end.
    """
    pitch, breath = draw.log("pitch", 340, 780), draw.uniform("breath", 0.03, 0.3)
    rough, width = draw.uniform("roughness", 0, 0.25), draw.log("formant", 850, 1500)
    last = draw.uniform("last note", 0.45, 1.4)
    x, at = np.zeros(draw.n), draw.vary(0, 1.2)

    def note(seconds, *steps):
        n = samples(seconds)
        formants = [(width, 350, 1.0), (width * 2.3, 500, 0.8), (4300, 700, 0.35)]
        sound = voice(
            draw.rng,
            pitch * curve(n, *steps),
            formants,
            tilt=-0.6,
            jitter=0.02,
            breath=breath,
            rough=rough,
        )
        return sound * swell(n, 0.1, 0.2)

    for _ in range(draw.count(1, 2)):
        song = [note(draw.vary(0.12, 0.25), 0.8, 1, 0.9), note(draw.vary(0.1, 0.3), 1, 1.2, 1.1)]
        song += [
            note(draw.vary(0.15, 0.4), 1.2, 1.5, 1.4),
            note(last, 1.3, 1.6, 1.55, 1.4, 1.0, 0.7),
        ]
        for sound in song:
            if draw.chance(0.9):
                place(x, sound, at, draw.vary(0.7, 1))
                at += len(sound) / SAMPLE_RATE + draw.vary(0.01, 0.12)
        at += draw.vary(0.6, 2)
    return x


def cat(draw):
    """Meow: the mouth opens (m-e-a) and closes (o-w), the pitch rises and sinks; some hoarse."""
    pitch, length = draw.log("pitch", 320, 850), draw.log("length", 0.35, 1.4)
    height, hoarse = draw.uniform("vocal tract", 0.75, 1.25), draw.uniform("breath", 0.02, 0.2)

    def meow():
        n = samples(length * draw.vary(0.8, 1.2))
        opening = height * curve(n, 0.4, 1, 1, 0.6, 0.4)
        formants = [
            (1100 * opening, 220, 1.0),
            (2400 * opening, 350, 0.6),
            (4300 * height, 600, 0.25),
        ]
        glide = pitch * draw.vary(0.9, 1.1) * curve(n, 0.85, draw.vary(1.1, 1.3), 1.1, 0.8)
        return voice(draw.rng, glide, formants, tilt=-0.3, breath=hoarse) * swell(n, 0.25, 0.4)

    return sequence(draw, meow, (1, 4), (0.2, 1.2))


def crow(draw):
    """Caw: rough and noisy, almost level in pitch."""
    pitch, rough = draw.log("pitch", 320, 680), draw.uniform("roughness", 0.4, 0.9)
    formant, breath = draw.log("formant", 1000, 1800), draw.uniform("breath", 0.2, 0.8)

    def caw():
        n = samples(draw.vary(0.2, 0.55))
        formants = [(formant, 350, 1.0), (formant * 1.9, 450, 0.7)]
        glide = pitch * curve(n, 1, 1.1, 0.9)
        sound = voice(draw.rng, glide, formants, tilt=-0.5, jitter=0.08, breath=breath, rough=rough)
        return sound * swell(n, 0.1, 0.25)

    return sequence(draw, caw, (2, 7), (0.1, 0.6))


def bird(draw):
    """One to three song birds: nearly pure whistled notes of 40 to 200 ms, swept or trilled."""
    x = np.zeros(draw.n)
    height, speed = draw.log("pitch", 1800, 7000), draw.log("notes a second", 1.5, 11)
    for _ in range(draw.count(1, 3)):
        pitch, length = height * draw.vary(0.7, 1.4), draw.vary(0.04, 0.2)
        shape = draw.rng.uniform(0.7, 1.3, 4)
        trill = draw.vary(20, 60) if draw.chance(0.35) else 0.0

        def chirp(pitch=pitch, length=length, shape=shape, trill=trill):
            n = samples(length * draw.vary(0.8, 1.2))
            return tone(pitch * curve(n, *shape) * (1 + 0.05 * tone(trill, n)), n) * swell(
                n, 0.2, 0.4
            )

        x += repeat(draw, chirp, speed * draw.vary(0.6, 1.2), 0.5, 0.6) * draw.vary(0.3, 1)
    return x


def crickets(draw):
    """A scraper over a file: a high tone in pulses of 15 to 60 a second, grouped into chirps; up to
    three insects.
    """
    pitch, pulse = draw.log("pitch", 2300, 8000), draw.log("pulse rate", 14, 65)
    chirps = draw.log("chirp rate", 0.7, 4.5)
    x, t = np.zeros(draw.n), time(draw.n)
    for _ in range(draw.count(1, 3)):
        group = (t * chirps * draw.vary(0.8, 1.2) + draw.vary(0, 1)) % 1 < draw.vary(0.3, 1.0)
        scrape = tone(pulse * draw.vary(0.9, 1.1), draw.n) > 0
        x += (
            tone(pitch * draw.vary(0.85, 1.15), draw.n)
            * gate(group & scrape, 200)
            * draw.vary(0.3, 1)
        )
    return x + 0.05 * noise(draw.rng, draw.n, 0, 1000)


def frog(draw):
    """A croak: a throat whose sound is chopped 25 to 70 times a second, repeated."""
    pitch, chop = draw.log("pitch", 110, 750), draw.log("chop rate", 22, 75)
    formant, rate = draw.log("formant", 550, 1600), draw.log("croaks a second", 0.7, 4.5)

    def croak():
        n = samples(draw.vary(0.1, 0.4))
        formants = [(formant, 250, 1.0), (2500, 400, 0.4)]
        sound = voice(
            draw.rng, pitch * curve(n, 1, 1.1, 1), formants, tilt=-0.5, jitter=0.05, breath=0.1
        )
        return sound * gate(tone(chop, n) > -0.2, 300) * swell(n, 0.1, 0.2)

    return repeat(draw, croak, rate, 0.3)


def cow(draw):
    """Moo: a long low call that opens from the nose to the mouth."""
    pitch, length = draw.log("pitch", 80, 200), draw.log("length", 0.9, 2.8)
    tract, breath = draw.uniform("vocal tract", 0.8, 1.25), draw.uniform("breath", 0.03, 0.15)

    def moo():
        n = samples(length * draw.vary(0.9, 1.1))
        opening = tract * curve(n, 0.5, 0.8, 1.1, 0.8)
        formants = [(450 * opening, 120, 1.0), (950 * opening, 180, 0.6), (2500, 400, 0.15)]
        sound = voice(
            draw.rng, pitch * curve(n, 0.85, 1, 1.15, 0.9), formants, jitter=0.015, breath=breath
        )
        return sound * swell(n, 0.2, 0.2)

    return sequence(draw, moo, (1, 3), (0.3, 1.2))


def sheep(draw):
    """Baa: pitch and loudness tremble 6 to 13 times a second."""
    pitch, tremor = draw.log("pitch", 170, 480), draw.uniform("tremor", 5.5, 13.5)
    depth, formant = draw.uniform("tremor depth", 0.25, 0.6), draw.log("formant", 650, 1050)

    def baa():
        n = samples(draw.vary(0.5, 1.3))
        shake = tone(tremor * draw.vary(0.9, 1.1), n)
        formants = [(formant, 180, 1.0), (formant * 2.1, 250, 0.7), (2900, 400, 0.3)]
        glide = pitch * draw.vary(0.9, 1.1) * curve(n, 1, 1.1, 0.9) * (1 + 0.05 * shake)
        sound = voice(draw.rng, glide, formants, tilt=-0.4, jitter=0.02, breath=0.1)
        return sound * (1 + depth * shake) * swell(n, 0.1, 0.2)

    return sequence(draw, baa, (1, 4), (0.2, 1.2))


def pig(draw):
    """Oink: snorted noise chopped by the flapping palate, sometimes ending in a squeal."""
    flap, low = draw.log("flap rate", 22, 65), draw.log("low edge", 180, 500)
    high, squeals = draw.log("high edge", 1400, 3800), draw.chance(0.35)

    def oink():
        n = samples(draw.vary(0.12, 0.5))
        snort = normalize(
            noise(draw.rng, n, 0.3, low, high)
            * gate(tone(flap * draw.vary(0.9, 1.1), n) > -0.3, 300)
        )
        if squeals and draw.chance(0.4):
            formants = [(1500, 400, 1.0), (3200, 600, 0.6)]
            snort = snort + 4 * voice(
                draw.rng, curve(n, 500, 1200, 900), formants, breath=0.3, rough=0.4
            )
        return snort * swell(n, 0.2, 0.3)

    return sequence(draw, oink, (2, 9), (0.03, 0.5))


def hen(draw):
    """Clucks, short and nasal, two to six a second; now and then a long drawn one."""
    pitch, rate = draw.log("pitch", 380, 950), draw.log("clucks a second", 1.8, 6.5)
    formant = draw.log("formant", 950, 1600)

    def cluck():
        n = samples(draw.vary(0.06, 0.2) if draw.chance(0.88) else draw.vary(0.4, 0.8))
        glide = pitch * draw.vary(0.85, 1.15) * curve(n, 1, 1.3, 0.9)
        sound = voice(
            draw.rng,
            glide,
            [(formant, 300, 1.0), (2900, 500, 0.5)],
            tilt=-0.3,
            jitter=0.03,
            breath=0.25,
        )
        return sound * swell(n, 0.1, 0.5)

    return repeat(draw, cluck, rate, 0.4, 0.5)


def duck(draw):
    """Quack: nasal, rough, falling; in a row that gets softer."""
    pitch, rate = draw.log("pitch", 180, 420), draw.log("quacks a second", 1.5, 5)
    formant = draw.log("formant", 950, 1700)

    def quack():
        n = samples(draw.vary(0.12, 0.28))
        formants = [(formant, 250, 1.0), (formant * 1.9, 300, 0.9), (3600, 500, 0.4)]
        glide = pitch * curve(n, 1.1, 1.1, 0.8)
        sound = voice(draw.rng, glide, formants, tilt=-0.6, jitter=0.05, breath=0.3, rough=0.3)
        return sound * swell(n, 0.08, 0.4)

    return repeat(draw, quack, rate, 0.2, 0.6, draw.count(2, 14))


def gull(draw):
    """Sea gulls: long falling cries and a row of short ones, high and hoarse, over distant surf."""
    pitch, formant = draw.log("pitch", 700, 1500), draw.log("formant", 1700, 3000)

    def cry():
        n = samples(draw.vary(0.15, 0.9))
        glide = pitch * draw.vary(0.85, 1.2) * curve(n, 0.8, 1.25, 1.1, 0.75)
        formants = [(formant, 500, 1.0), (formant * 1.8, 700, 0.6)]
        return voice(
            draw.rng, glide, formants, tilt=-0.5, jitter=0.02, breath=0.15, rough=0.2
        ) * swell(n, 0.15, 0.35)

    surf = noise(draw.rng, draw.n, 1.2, 60, 4000) * wander(draw.rng, draw.n, 0.5, 0.2, 1)
    return sequence(draw, cry, (2, 8), (0.05, 0.6)) + draw.vary(0, 0.06) * surf


def owl(draw):
    """Hoots: low, almost pure notes with a soft start, in a group."""
    pitch, brightness = draw.log("pitch", 260, 560), draw.uniform("second partial", 0.02, 0.3)

    def hoot():
        n = samples(draw.vary(0.2, 0.7))
        glide = pitch * curve(n, 0.95, 1, 0.93)
        return harmonics(draw.rng, glide, n, [1, brightness, brightness / 4]) * swell(n, 0.25, 0.3)

    return sequence(draw, hoot, (2, 6), (0.1, 0.6)) + 0.01 * noise(draw.rng, draw.n, 1)


def wolf(draw):
    """A howl: two to four seconds, rising by an octave, held, sinking; sometimes a second animal
    answers.
    """
    pitch, length = draw.log("pitch", 230, 520), draw.uniform("length", 1.8, 4.2)
    x = np.zeros(draw.n)
    for _ in range(draw.count(1, 2)):
        n = samples(length * draw.vary(0.8, 1.1))
        glide = pitch * draw.vary(0.9, 1.2) * curve(n, 0.6, 1.3, 1.5, 1.45, 1.2, 0.7)
        howl = voice(
            draw.rng,
            glide,
            [(650, 250, 1.0), (1250, 300, 0.5)],
            tilt=0.6,
            jitter=0.006,
            breath=0.05,
        )
        place(x, howl * swell(n, 0.15, 0.3), draw.vary(0, 1.5))
    return x


def bee(draw):
    """Buzz: wings beat 130 to 650 times a second; loudness and pitch change as it flies past."""
    pitch, pace = draw.log("wing beats", 115, 700), draw.uniform("pace", 0.8, 4)
    beat = pitch * wander(draw.rng, draw.n, pace, 0.88, 1.1)
    formants = [(draw.vary(400, 1000), 400, 1.0), (draw.vary(1800, 3200), 900, 0.5)]
    return voice(draw.rng, beat, formants, jitter=0.02, breath=0.1) * wander(
        draw.rng, draw.n, pace, 0.1, 1
    )


def horse(draw):
    """Hooves: a trot (two beats) or a gallop (three quick beats and a pause) on hard or soft
    ground.
    """
    body, pace = draw.log("hoof resonance", 250, 1600), draw.log("strides a second", 1.2, 2.8)
    soft = draw.uniform("softness", 0, 1)
    beats = draw.pick([(0.0, 0.5), (0.0, 0.22, 0.4), (0.0, 0.25, 0.5, 0.75)])

    def stride():
        x = np.zeros(samples(1.0))
        for beat in beats:
            n = samples(0.12)
            tock = normalize(band(draw.rng.standard_normal(n), body * 0.6, body * 1.8)) * strike(
                n, 0.008 + 0.02 * soft
            )
            place(
                x,
                tock + soft * noise(draw.rng, n, 1.5, 40, 500) * strike(n, 0.04),
                beat / pace,
                draw.vary(0.7, 1),
            )
        return x

    return repeat(draw, stride, pace, 0.04, 0.2)


def woodpecker(draw):
    """Drumming on a trunk: rolls of 12 to 25 strokes a second, speeding up and dying away."""
    wood, speed = draw.log("trunk resonance", 500, 2200), draw.log("strokes a second", 11, 26)

    def roll():
        x = np.zeros(samples(1.4))
        for k in range(draw.count(8, 22)):
            n = samples(0.04)
            knock = normalize(band(draw.rng.standard_normal(n), wood * 0.7, wood * 1.6)) * strike(
                n, 0.006
            )
            place(x, knock, k / speed, 1 - 0.03 * k)
        return x

    return sequence(draw, roll, (1, 3), (0.2, 1.0))
