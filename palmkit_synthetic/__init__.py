"""The default datasets: sounds, music and speech, generated at first use."""

# The names in `tasks`, which loads SciPy. A command line that only checks a name needs no more.
TASK_NAMES = (
    *("SoundEvents", "Instruments", "Scenes", "VocalSounds", "Languages", "MusicStyles"),
    *("SpanishDigits", "GermanEmotions", "UnseenConcepts"),
)
