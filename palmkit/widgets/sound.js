// A sound from the user: dropped, chosen or recorded. It goes to Python as the bytes of a file.
const LIMIT = 8; // MB; a Jupyter server closes the connection at a message of 10
const SECONDS = 7; // length of the model's clip

function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => [...word].forEach((c, n) => view.setUint8(at + n, c.charCodeAt(0)));
  text(0, "RIFF"), view.setUint32(4, 36 + 2 * samples.length, true), text(8, "WAVEfmt "), view.setUint32(16, 16, true);
  view.setUint16(20, 1, true), view.setUint16(22, 1, true), view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true), view.setUint16(32, 2, true), view.setUint16(34, 16, true);
  text(36, "data"), view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, n) => view.setInt16(44 + 2 * n, 32767 * Math.max(-1, Math.min(1, x)), true));
  return view.buffer;
}

function render({ model, el }) {
  el.classList.add("palmkit-sound");
  el.innerHTML = `<label>Drop a recording of your own here, or choose one:
    <input type="file" accept="audio/*,.wav,.flac,.ogg,.mp3" aria-label="Choose a recording"></label>
    <button type="button" class="jupyter-button">Record ${SECONDS} s</button><span role="status"></span>`;
  const [input, button, status] = ["input", "button", "span"].map((name) => el.querySelector(name));
  const send = (name, buffer) => {
    status.textContent = "";
    model.send({ name }, undefined, [buffer]);
  };

  async function take(file) {
    if (!file) return;
    if (file.size > LIMIT * 1e6)
      status.textContent = `${file.name} has ${(file.size / 1e6).toFixed(1)} MB; cut it to ${LIMIT} MB or less.`;
    else send(file.name, await file.arrayBuffer());
  }
  input.addEventListener("change", () => take(input.files[0]).then(() => (input.value = "")));
  el.addEventListener("dragover", (event) => (event.preventDefault(), el.classList.add("over")));
  el.addEventListener("dragleave", () => el.classList.remove("over"));
  el.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would open the file beside the notebook
    el.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });

  let recorder = null;
  async function record() {
    if (recorder) return recorder.stop();
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      const chunks = [];
      recorder = new MediaRecorder(stream);
      recorder.ondataavailable = (event) => chunks.push(event.data);
      recorder.onstop = async () => {
        clearTimeout(timer);
        stream.getTracks().forEach((track) => track.stop());
        recorder = null;
        button.textContent = `Record ${SECONDS} s`;
        try {
          const sound = await new AudioContext({ sampleRate: 44100 }).decodeAudioData(await new Blob(chunks).arrayBuffer());
          send("recording.wav", wav(sound.getChannelData(0), 44100));
        } catch (error) {
          status.textContent = `The recording cannot be read: ${error.message}.`;
        }
      };
      recorder.start();
      const timer = setTimeout(() => recorder && recorder.stop(), SECONDS * 1000);
      button.textContent = "Stop recording";
      status.textContent = "recording ...";
    } catch (error) {
      recorder = null; // no permission, no microphone, or a page that is neither https nor localhost
      status.textContent = `The microphone cannot be used (${error.message}); record with another program and drop the file here.`;
    }
  }
  button.addEventListener("click", record);
  return () => recorder && recorder.stop();
}

export default { render };
