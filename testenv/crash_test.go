package testenv

const crashEnv = "XLVS_TESTENV_CRASH"

func crash() {}
