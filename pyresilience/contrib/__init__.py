"""Listeners and bridges for other people's libraries; each module needs the library it is named after."""
