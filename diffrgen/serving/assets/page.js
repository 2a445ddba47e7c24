// The form of the page: previews, uploads, and the one event that asks Gradio for a report. Gives `element`, `trigger`.
const form = element.querySelector("form.study");
const [status, problem, preview] = [".status", ".problem", ".preview"].map((name) => form.querySelector(name));
const [image, second, prior] = ["#image", "#second-image", "#prior-image"].map((id) => form.querySelector(id));
const [drop, chosen, button] = [".drop", ".chosen", ".primary"].map((name) => form.querySelector(name));
const examples = [...form.querySelectorAll("[data-example]")];
const [priorReport, examplePrior] = [form.querySelector("#prior-report"), form.querySelector("#example-prior")];
const [indication, history] = ["#indication", "#history"].map((id) => form.querySelector(id));
const limit = Number(form.dataset.maxBytes);
let example = null;
let sent = [];

const say = (text) => { status.textContent = text; };
const complain = (text) => { problem.textContent = text; busy(false); };
const GONE = "The service cannot be reached.";

function busy(on) {
  button.toggleAttribute("aria-disabled", on);
  form.setAttribute("aria-busy", String(on));
  if (!on) say("");
}

function show(source, text) {
  if (preview.src.startsWith("blob:")) URL.revokeObjectURL(preview.src);
  preview.hidden = source === null;
  if (source === null) preview.removeAttribute("src");
  else preview.src = source;
  drop.classList.toggle("filled", source !== null);
  chosen.textContent = text;
  problem.textContent = "";
}

// An example has a prior study; text that the visitor entered is kept.
function offerPrior(report) {
  if (!examplePrior) return;
  const written = priorReport.value !== (priorReport.dataset.filled || "");
  examplePrior.checked = report !== undefined;
  examplePrior.closest("label").hidden = report === undefined;
  if (!written) priorReport.value = priorReport.dataset.filled = report || "";
  if (report !== undefined) examplePrior.closest("details").open = true;
}

function choose(number) {
  example = number;
  offerPrior(number === null ? undefined : examples[number].dataset.prior);
  examples.forEach((each, place) => each.setAttribute("aria-pressed", String(place === number)));
}

image.addEventListener("change", () => {
  const file = image.files[0];
  if (!file) return;
  choose(null);
  const shown = /\.(png|jpe?g)$/i.test(file.name) ? URL.createObjectURL(file) : null;
  show(shown, `${file.name}${shown ? "" : " (shown with its report)"}`);
});
preview.addEventListener("error", () => { preview.hidden = true; drop.classList.remove("filled"); });

examples.forEach((each, place) => each.addEventListener("click", () => {
  image.value = "";
  if (second) second.value = "";
  choose(place);
  preview.alt = each.querySelector("img").alt;
  show(each.dataset.preview, preview.alt);
}));

["dragover", "dragleave", "drop"].forEach((name) => drop.addEventListener(name, (event) => {
  event.preventDefault();
  drop.classList.toggle("over", name === "dragover");
  if (name === "drop" && event.dataTransfer.files.length) {
    image.files = event.dataTransfer.files;
    image.dispatchEvent(new Event("change"));
  }
}));

async function send(file, role = "") {
  if (file.size > limit) throw new Error(`${role}The file is too large: at most ${limit / 1e6} MB are accepted.`);
  const answer = await fetch("images", { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });
  const text = await answer.text();
  if (!answer.ok) throw new Error(role + text);
  return { token: text };
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (button.hasAttribute("aria-disabled")) return;
  problem.textContent = "";
  const file = image.files[0];
  if (!file && example === null) { complain("Please choose an X-ray image or one of the examples first."); image.focus(); return; }
  busy(true);
  say("Sending the image ...");
  try {
    const earlier = prior && prior.files[0] ? await send(prior.files[0], "Earlier image: ") : null;
    const view = second && second.files[0] ? await send(second.files[0], "Second view: ") : null;
    // The files that a draft in a hospital's format is made of, should the visitor ask for it.
    sent = file ? [file, ...(view ? [second.files[0]] : [])] : [];
    const request = { prior_image: earlier, second_image: view, prior_report: priorReport ? priorReport.value : "" };
    for (const field of [indication, history]) if (field) request[field.id] = field.value;
    trigger("submit", file ? { ...request, image: await send(file) } : { ...request, example, example_prior: !earlier && Boolean(examplePrior && examplePrior.checked) });
    say("Generating the report ...");
  } catch (error) {
    complain(error instanceof TypeError ? GONE : error.message);
  }
});

// Gradio does not detect that the service is gone during generation: it waits for an answer for ever.
setInterval(() => {
  if (form.getAttribute("aria-busy") === "true") fetch("robots.txt", { cache: "no-store" }).catch(() => complain(GONE));
}, 3000);

// Gradio calls these when it has put an answer into its place, or could not get one.
window.diffrgenAnswered = (html) => {
  const answer = new DOMParser().parseFromString(html, "text/html");
  const message = answer.querySelector("[data-problem]");
  if (message) { complain(message.textContent); return; }
  problem.textContent = "";
  busy(false);
  setTimeout(() => {
    document.dispatchEvent(new CustomEvent("diffrgen-report", { detail: { files: sent } }));
    document.querySelector("#answer [data-answer]").focus();
  }, 0);
};
window.diffrgenFailed = () => complain("The service is busy or cannot be reached; please try again in a minute.");
