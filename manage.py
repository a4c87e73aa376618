from pq.api import PulsarQueue


def app():
    return PulsarQueue(config="config.py")


if __name__ == "__main__":
    app().start()
