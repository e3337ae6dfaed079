// A file, not a script in the page, so that the pages need no 'unsafe-inline' for scripts.
const page = document.getElementById("swagger-ui");
SwaggerUIBundle({ domNode: page, url: page.dataset.document, deepLinking: true });
