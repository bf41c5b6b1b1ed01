// Weights that a panel loads when the reader asks for them: from the site, where they lie beside
// the state, or from the kernel (book/scripts/live.js, course_utils/live/panel.py).

const PATIENCE = 60_000; // ms without a sign of life

/** The weights as an ArrayBuffer; `told(bytes)` hears how many have come. */
export function askWeights(model, told) {
  return new Promise((done, fail) => {
    let timer = 0;
    const end = (finish, result) => {
      clearTimeout(timer);
      model.off("msg:custom", listen);
      finish(result);
    };
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(() => end(fail, new Error("no answer")), PATIENCE);
    };
    function listen({ kind, bytes }, buffers) {
      wait();
      if (kind === "progress") told(bytes);
      if (kind === "failed") end(fail, new Error("the weights could not be loaded"));
      if (kind === "weights") {
        const { buffer, byteOffset, byteLength } = buffers[0];
        end(done, buffer.slice(byteOffset, byteOffset + byteLength));
      }
    }
    model.on("msg:custom", listen);
    wait();
    model.send({ kind: "weights" });
  });
}
