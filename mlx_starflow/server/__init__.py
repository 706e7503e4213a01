"""An image server and a page in the browser: HTTP in front of one loaded model (extra "server")."""
