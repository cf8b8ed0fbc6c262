"""The default datasets: sounds, music and speech, generated at first use."""
