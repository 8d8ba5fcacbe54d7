// Opened as a file, the page gets no modules from the browser, and so nothing that could say why.

if (location.protocol === "file:") {
  document.getElementById("notice").textContent = "This page was opened as a file, from which browsers "
    + "load no modules. Serve its folder: python -m http.server --directory FOLDER";
}
