"""Members one by one, each the user's own module: any module can be trained so, and faster ways are held to it."""
