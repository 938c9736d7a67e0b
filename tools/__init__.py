"""What makes and checks the project: environment, ComfyUI as a server, browser, workflow and translation builders."""
