// What Gradio's page lacks: arrow keys between tabs, one sound at a time, a busy state, an answer in view, and uploads
// refused in their place.
(() => {
  const shown = element => element.getClientRects().length > 0 && getComputedStyle(element).visibility !== "hidden";

  document.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    const tab = event.target.closest?.("[role=tab]");
    if (!step || !tab) return;
    const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]")].filter(shown);
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    event.preventDefault();
    next.click();
    next.focus();
  });

  document.addEventListener("play", event => {
    for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
  }, true);

  window.audiobertBusy = id => document.getElementById(id)?.setAttribute("aria-busy", "true");
  window.audiobertDone = id => {
    const answer = document.getElementById(id);
    if (!answer) return;
    answer.removeAttribute("aria-busy");
    requestAnimationFrame(() => {
      const top = answer.getBoundingClientRect().top;
      if (top < 0 || top > innerHeight / 2) answer.scrollIntoView({block: "start"});
    });
  };

  // Gradio calls all upload buttons the same.
  new MutationObserver(() => {
    for (const button of document.querySelectorAll(".ab-upload .upload-container")) {
      const name = button.closest(".ab-upload").querySelector("[data-testid=block-label]")?.textContent.trim();
      if (name && button.getAttribute("aria-label") !== name) button.setAttribute("aria-label", name);
    }
  }).observe(document.documentElement, {childList: true, subtree: true});

  let slot = null;
  const remember = event => {
    slot = event.target.closest?.(".ab-upload") ?? slot;
    slot?.querySelector(".ab-refused")?.remove();
  };
  document.addEventListener("change", event => event.target.type === "file" && remember(event), true);
  document.addEventListener("drop", remember, true);

  const send = window.fetch;
  window.fetch = async (...request) => {
    const response = await send(...request);
    const address = String(request[0]?.url ?? request[0]);
    if (response.ok || !/\/gradio_api\/upload(\?|$)/.test(address)) return response;
    const refused = document.createElement("p");
    refused.className = "ab-error ab-refused";
    refused.setAttribute("role", "alert");
    refused.textContent = await response.text();
    slot?.append(refused);
    return new Response("[]", {headers: {"content-type": "application/json"}}); // Gradio keeps the slot empty
  };
})();
