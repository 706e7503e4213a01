"""Files from outside: opened only if they are regular, read within limits, shown safely."""
