import { init } from "../redoc/assets/redoc.standalone.js";

// ReDoc's badge has its picture on a CDN. Nothing here leaves the host, so its name stands in.
const BADGE = `data:image/svg+xml,${encodeURIComponent(
  '<svg xmlns="http://www.w3.org/2000/svg" width="52" height="16"><text y="13" font-size="14">Redocly</text></svg>',
)}`;
Object.defineProperty(HTMLImageElement.prototype, "src", {
  get() {
    return this.getAttribute("src");
  },
  set(value) {
    this.setAttribute("src", value);
  },
});
HTMLImageElement.prototype.setAttribute = function (name, value) {
  const away = name === "src" && !value.startsWith("data:") && new URL(value, location).origin !== location.origin;
  Element.prototype.setAttribute.call(this, name, away ? BADGE : value);
};

// Its search makes a worker with eval, which the page's policy forbids; where there are no workers it does without.
window.Worker = undefined;

const page = document.getElementById("redoc");
init(page.dataset.document, { disableTelemetry: true }, page);
