"""`python -m fewtokens` and `torchrun … -m fewtokens`: the command `fewtokens`."""

from fewtokens_command import main

if __name__ == '__main__':
    main()
