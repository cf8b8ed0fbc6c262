"""Animals: mostly throats (pulses through moving resonances), some rubbing wings.

See `dsp.voice` for the model.
"""

from __future__ import annotations

import numpy as np

from palmkit_synthetic.dsp import (
    band,
    curve,
    duration,
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
)


def dog(draw):
    """Short barks: pitch and mouth open and shut within 0.1 to 0.3 s.

    The larger the dog, the lower and hoarser.
    """
    size = draw.uniform("size", 0, 1)
    breath = draw.uniform("breath", 0.05, 0.9)
    pitch = draw.log("pitch", 280, 950) * (1 - 0.55 * size)
    rough = draw.uniform("roughness", 0, 0.6)
    tilt = draw.uniform("tilt", -0.6, 0.3)

    def bark():
        n = samples(draw.vary(0.08, 0.3))
        height = pitch * draw.vary(0.9, 1.1)
        melody = curve(n, draw.vary(0.6, 0.9), draw.vary(1.1, 1.5), 1, draw.vary(0.5, 0.8))
        mouth = (1.35 - 0.6 * size) * curve(n, 400, 1000, 550)
        formants = [
            (mouth, 200, 1.0),
            (mouth * draw.vary(1.8, 2.4), 300, 0.7),
            (3300 - 700 * size, 500, 0.3),
        ]
        sound = voice(
            draw.rng,
            height * melody,
            formants,
            tilt=tilt,
            jitter=0.06,
            breath=breath,
            rough=rough,
        )
        return sound * swell(n, draw.vary(0.05, 0.15), draw.vary(0.3, 0.6))

    barks = sequence(draw, bark, count=(1, 9), gap=(0.05, 0.9))
    if draw.chance(0.15):
        return barks + growl(draw, pitch / 5, size)
    return barks


def growl(draw, pitch, size):
    """A low rough rumble under the barks."""
    n = samples(draw.vary(0.6, 2.0))
    glide = pitch * curve(n, 1, 1.15, 0.95)
    throat = [(550 - 200 * size, 200, 1.0), (1300, 300, 0.5)]
    rumble = voice(draw.rng, glide, throat, jitter=0.1, breath=0.5, rough=0.5)
    x = draw.silence()
    place(x, rumble * swell(n, 0.3, 0.3), draw.vary(0, 2), draw.vary(0.1, 0.4))
    return x


def rooster(draw):
    """Cock-a-doodle-doo: three short rising notes, then a long one that falls.

    Bright, a little hoarse at its end.
    """
    pitch = draw.log("pitch", 340, 780)
    breath = draw.uniform("breath", 0.03, 0.3)
    rough = draw.uniform("roughness", 0, 0.25)
    formant = draw.log("formant", 850, 1500)
    last = draw.uniform("last note", 0.45, 1.4)
    x = draw.silence()
    at = draw.vary(0, 1.2)

    def note(seconds, *steps):
        n = samples(seconds)
        formants = [
            (formant, 350, 1.0),
            (formant * 2.3, 500, 0.8),
            (4300, 700, 0.35),
        ]
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
        song = [
            note(draw.vary(0.12, 0.25), 0.8, 1, 0.9),
            note(draw.vary(0.1, 0.3), 1, 1.2, 1.1),
            note(draw.vary(0.15, 0.4), 1.2, 1.5, 1.4),
            note(last, 1.3, 1.6, 1.55, 1.4, 1.0, 0.7),
        ]
        for sound in song:
            if draw.chance(0.9):  # not every cock sings all four notes
                place(x, sound, at, draw.vary(0.7, 1))
                at += duration(sound) + draw.vary(0.01, 0.12)
        at += draw.vary(0.6, 2)
    return x


def cat(draw):
    """Meow: the mouth opens (m-e-a) and closes (o-w), the pitch rises and sinks; some hoarse."""
    pitch = draw.log("pitch", 320, 850)
    length = draw.log("length", 0.35, 1.4)
    tract = draw.uniform("vocal tract", 0.75, 1.25)
    hoarse = draw.uniform("breath", 0.02, 0.2)

    def meow():
        n = samples(length * draw.vary(0.8, 1.2))
        opening = tract * curve(n, 0.4, 1, 1, 0.6, 0.4)
        formants = [
            (1100 * opening, 220, 1.0),
            (2400 * opening, 350, 0.6),
            (4300 * tract, 600, 0.25),
        ]
        height = pitch * draw.vary(0.9, 1.1)
        glide = height * curve(n, 0.85, draw.vary(1.1, 1.3), 1.1, 0.8)
        sound = voice(draw.rng, glide, formants, tilt=-0.3, breath=hoarse)
        return sound * swell(n, 0.25, 0.4)

    return sequence(draw, meow, count=(1, 4), gap=(0.2, 1.2))


def crow(draw):
    """Caw: rough and noisy, almost level in pitch."""
    pitch = draw.log("pitch", 320, 680)
    rough = draw.uniform("roughness", 0.4, 0.9)
    formant = draw.log("formant", 1000, 1800)
    breath = draw.uniform("breath", 0.2, 0.8)

    def caw():
        n = samples(draw.vary(0.2, 0.55))
        formants = [(formant, 350, 1.0), (formant * 1.9, 450, 0.7)]
        glide = pitch * curve(n, 1, 1.1, 0.9)
        sound = voice(draw.rng, glide, formants, tilt=-0.5, jitter=0.08, breath=breath, rough=rough)
        return sound * swell(n, 0.1, 0.25)

    return sequence(draw, caw, count=(2, 7), gap=(0.1, 0.6))


def bird(draw):
    """One to three song birds: nearly pure whistled notes of 40 to 200 ms, swept or trilled."""
    pitch = draw.log("pitch", 1800, 7000)
    rate = draw.log("notes a second", 1.5, 11)
    x = draw.silence()
    for _ in range(draw.count(1, 3)):
        x += song_bird(draw, pitch, rate)
    return x


def song_bird(draw, pitch, rate):
    """One bird, which repeats one kind of note."""
    own_pitch = pitch * draw.vary(0.7, 1.4)
    length = draw.vary(0.04, 0.2)
    shape = draw.rng.uniform(0.7, 1.3, 4)
    trill = draw.vary(20, 60) if draw.chance(0.35) else 0.0

    def chirp():
        n = samples(length * draw.vary(0.8, 1.2))
        glide = own_pitch * curve(n, *shape)
        note = tone(glide * (1 + 0.05 * tone(trill, n)), n)
        return note * swell(n, 0.2, 0.4)

    notes = repeat(draw, chirp, rate * draw.vary(0.6, 1.2), jitter=0.5, weaker=0.6)
    return notes * draw.vary(0.3, 1)


def crickets(draw):
    """A scraper over a file: a high tone in 15 to 60 pulses a second, grouped into chirps.

    Up to three insects.
    """
    pitch = draw.log("pitch", 2300, 8000)
    pulse = draw.log("pulse rate", 14, 65)
    chirps = draw.log("chirp rate", 0.7, 4.5)
    t = time(draw.n)
    x = draw.silence()
    for _ in range(draw.count(1, 3)):
        turn = (t * chirps * draw.vary(0.8, 1.2) + draw.vary(0, 1)) % 1
        chirping = turn < draw.vary(0.3, 1.0)
        scraping = tone(pulse * draw.vary(0.9, 1.1), draw.n) > 0
        wings = tone(pitch * draw.vary(0.85, 1.15), draw.n)
        x += wings * gate(chirping & scraping, 200) * draw.vary(0.3, 1)
    return x + 0.05 * draw.noise(low=1000)


def frog(draw):
    """A croak: a throat whose sound is chopped 25 to 70 times a second, repeated."""
    pitch = draw.log("pitch", 110, 750)
    chop = draw.log("chop rate", 22, 75)
    formant = draw.log("formant", 550, 1600)
    rate = draw.log("croaks a second", 0.7, 4.5)

    def croak():
        n = samples(draw.vary(0.1, 0.4))
        formants = [(formant, 250, 1.0), (2500, 400, 0.4)]
        glide = pitch * curve(n, 1, 1.1, 1)
        sound = voice(draw.rng, glide, formants, tilt=-0.5, jitter=0.05, breath=0.1)
        open_throat = tone(chop, n) > -0.2
        return sound * gate(open_throat, 300) * swell(n, 0.1, 0.2)

    return repeat(draw, croak, rate, jitter=0.3)


def cow(draw):
    """Moo: a long low call that opens from the nose to the mouth."""
    pitch = draw.log("pitch", 80, 200)
    length = draw.log("length", 0.9, 2.8)
    tract = draw.uniform("vocal tract", 0.8, 1.25)
    breath = draw.uniform("breath", 0.03, 0.15)

    def moo():
        n = samples(length * draw.vary(0.9, 1.1))
        opening = tract * curve(n, 0.5, 0.8, 1.1, 0.8)
        formants = [
            (450 * opening, 120, 1.0),
            (950 * opening, 180, 0.6),
            (2500, 400, 0.15),
        ]
        glide = pitch * curve(n, 0.85, 1, 1.15, 0.9)
        sound = voice(draw.rng, glide, formants, jitter=0.015, breath=breath)
        return sound * swell(n, 0.2, 0.2)

    return sequence(draw, moo, count=(1, 3), gap=(0.3, 1.2))


def sheep(draw):
    """Baa: pitch and loudness tremble 6 to 13 times a second."""
    pitch = draw.log("pitch", 170, 480)
    tremor = draw.uniform("tremor", 5.5, 13.5)
    depth = draw.uniform("tremor depth", 0.25, 0.6)
    formant = draw.log("formant", 650, 1050)

    def baa():
        n = samples(draw.vary(0.5, 1.3))
        shake = tone(tremor * draw.vary(0.9, 1.1), n)
        formants = [
            (formant, 180, 1.0),
            (formant * 2.1, 250, 0.7),
            (2900, 400, 0.3),
        ]
        height = pitch * draw.vary(0.9, 1.1)
        glide = height * curve(n, 1, 1.1, 0.9) * (1 + 0.05 * shake)
        sound = voice(draw.rng, glide, formants, tilt=-0.4, jitter=0.02, breath=0.1)
        return sound * (1 + depth * shake) * swell(n, 0.1, 0.2)

    return sequence(draw, baa, count=(1, 4), gap=(0.2, 1.2))


def pig(draw):
    """Oink: snorted noise chopped by the flapping palate, sometimes ending in a squeal."""
    flap = draw.log("flap rate", 22, 65)
    low = draw.log("low edge", 180, 500)
    high = draw.log("high edge", 1400, 3800)
    squeals = draw.chance(0.35)

    def oink():
        n = samples(draw.vary(0.12, 0.5))
        air = noise(draw.rng, n, 0.3, low, high)
        open_palate = tone(flap * draw.vary(0.9, 1.1), n) > -0.3
        snort = normalize(air * gate(open_palate, 300))
        if squeals and draw.chance(0.4):
            formants = [(1500, 400, 1.0), (3200, 600, 0.6)]
            glide = curve(n, 500, 1200, 900)
            snort = snort + 4 * voice(draw.rng, glide, formants, breath=0.3, rough=0.4)
        return snort * swell(n, 0.2, 0.3)

    return sequence(draw, oink, count=(2, 9), gap=(0.03, 0.5))


def hen(draw):
    """Clucks, short and nasal, two to six a second; now and then a long drawn one."""
    pitch = draw.log("pitch", 380, 950)
    rate = draw.log("clucks a second", 1.8, 6.5)
    formant = draw.log("formant", 950, 1600)

    def cluck():
        short = draw.chance(0.88)
        n = samples(draw.vary(0.06, 0.2) if short else draw.vary(0.4, 0.8))
        glide = pitch * draw.vary(0.85, 1.15) * curve(n, 1, 1.3, 0.9)
        formants = [(formant, 300, 1.0), (2900, 500, 0.5)]
        sound = voice(draw.rng, glide, formants, tilt=-0.3, jitter=0.03, breath=0.25)
        return sound * swell(n, 0.1, 0.5)

    return repeat(draw, cluck, rate, jitter=0.4, weaker=0.5)


def duck(draw):
    """Quack: nasal, rough, falling; in a row of a few."""
    pitch = draw.log("pitch", 180, 420)
    rate = draw.log("quacks a second", 1.5, 5)
    formant = draw.log("formant", 950, 1700)

    def quack():
        n = samples(draw.vary(0.12, 0.28))
        formants = [
            (formant, 250, 1.0),
            (formant * 1.9, 300, 0.9),
            (3600, 500, 0.4),
        ]
        glide = pitch * curve(n, 1.1, 1.1, 0.8)
        sound = voice(draw.rng, glide, formants, tilt=-0.6, jitter=0.05, breath=0.3, rough=0.3)
        return sound * swell(n, 0.08, 0.4)

    return repeat(draw, quack, rate, jitter=0.2, weaker=0.6, count=draw.count(2, 14))


def gull(draw):
    """Sea gulls: long falling cries and a row of short ones, high and hoarse, over distant surf."""
    pitch = draw.log("pitch", 700, 1500)
    formant = draw.log("formant", 1700, 3000)

    def cry():
        n = samples(draw.vary(0.15, 0.9))
        glide = pitch * draw.vary(0.85, 1.2) * curve(n, 0.8, 1.25, 1.1, 0.75)
        formants = [(formant, 500, 1.0), (formant * 1.8, 700, 0.6)]
        sound = voice(draw.rng, glide, formants, tilt=-0.5, jitter=0.02, breath=0.15, rough=0.2)
        return sound * swell(n, 0.15, 0.35)

    surf = draw.noise(1.2, 60, 4000) * draw.wander(0.5, 0.2, 1)
    cries = sequence(draw, cry, count=(2, 8), gap=(0.05, 0.6))
    return cries + draw.vary(0, 0.06) * surf


def owl(draw):
    """Hoots: low, almost pure notes with a soft start, in a group."""
    pitch = draw.log("pitch", 260, 560)
    brightness = draw.uniform("second partial", 0.02, 0.3)

    def hoot():
        n = samples(draw.vary(0.2, 0.7))
        glide = pitch * curve(n, 0.95, 1, 0.93)
        note = harmonics(draw.rng, glide, n, [1, brightness, brightness / 4])
        return note * swell(n, 0.25, 0.3)

    hoots = sequence(draw, hoot, count=(2, 6), gap=(0.1, 0.6))
    return hoots + 0.01 * draw.noise(1)


def wolf(draw):
    """A howl of two to four seconds: rising by an octave, held, sinking.

    Sometimes a second animal answers.
    """
    pitch = draw.log("pitch", 230, 520)
    length = draw.uniform("length", 1.8, 4.2)
    x = draw.silence()
    for _ in range(draw.count(1, 2)):
        n = samples(length * draw.vary(0.8, 1.1))
        height = pitch * draw.vary(0.9, 1.2)
        glide = height * curve(n, 0.6, 1.3, 1.5, 1.45, 1.2, 0.7)
        throat = [(650, 250, 1.0), (1250, 300, 0.5)]
        howl = voice(draw.rng, glide, throat, tilt=0.6, jitter=0.006, breath=0.05)
        place(x, howl * swell(n, 0.15, 0.3), draw.vary(0, 1.5))
    return x


def bee(draw):
    """Buzz: wings beat 130 to 650 times a second; loudness and pitch change as it flies past."""
    pitch = draw.log("wing beats", 115, 700)
    pace = draw.uniform("pace", 0.8, 4)
    beat = pitch * draw.wander(pace, 0.88, 1.1)
    formants = [
        (draw.vary(400, 1000), 400, 1.0),
        (draw.vary(1800, 3200), 900, 0.5),
    ]
    buzz = voice(draw.rng, beat, formants, jitter=0.02, breath=0.1)
    return buzz * draw.wander(pace, 0.1, 1)


def horse(draw):
    """Hooves on hard or soft ground.

    A trot (two beats), a gallop (three quick beats and a pause) or a walk (four beats).
    """
    body = draw.log("hoof resonance", 250, 1600)
    pace = draw.log("strides a second", 1.2, 2.8)
    soft = draw.uniform("softness", 0, 1)
    beats = draw.pick([(0.0, 0.5), (0.0, 0.22, 0.4), (0.0, 0.25, 0.5, 0.75)])

    def stride():
        x = np.zeros(samples(1.0))
        n = samples(0.12)
        for beat in beats:
            tock = knock(draw, n, body * 0.6, body * 1.8, 0.008 + 0.02 * soft)
            ground = soft * noise(draw.rng, n, 1.5, 40, 500) * strike(n, 0.04)
            place(x, tock + ground, beat / pace, draw.vary(0.7, 1))
        return x

    return repeat(draw, stride, pace, jitter=0.04, weaker=0.2)


def woodpecker(draw):
    """Drumming on a trunk: rolls of 12 to 25 strokes a second that die away."""
    wood = draw.log("trunk resonance", 500, 2200)
    speed = draw.log("strokes a second", 11, 26)

    def roll():
        x = np.zeros(samples(1.4))
        n = samples(0.04)
        for k in range(draw.count(8, 22)):
            stroke = knock(draw, n, wood * 0.7, wood * 1.6, 0.006)
            place(x, stroke, k / speed, 1 - 0.03 * k)
        return x

    return sequence(draw, roll, count=(1, 3), gap=(0.2, 1.0))


def knock(draw, n, low, high, decay):
    """[n] a dull stroke on wood or ground: noise in a band that dies at once."""
    return normalize(band(draw.rng.standard_normal(n), low, high)) * strike(n, decay)
