"""An image server with a web page, for one loaded model (needs the extra "server")."""
