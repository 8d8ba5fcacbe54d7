// If the page is opened as a file, browsers load no modules. This script is none, and says so.

if (location.protocol === "file:") {
  document.getElementById("notice").textContent = "This page was opened as a file, from which browsers "
    + "load no modules. Serve its folder: python -m http.server --directory FOLDER";
}
