"""The layers choose themselves: from weights alone (`auto`), and from evaluation without writing a merged model (`search`)."""
