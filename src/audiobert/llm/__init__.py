"""Chat with a language model: settings of a server, its one client, and a cache of answers."""
