# One node of Sallyport. Mount its settings as /sallyport/sallyport.yaml, with `data: /data`, and give /data a
# volume: embedded store, keys and recordings live there, unless the settings name other places.
FROM node:24-bookworm-slim
WORKDIR /sallyport

# The optional packages are Node itself and a PostgreSQL for tests: the image has the one and not the other.
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --omit=optional && npm cache clean --force

COPY bin bin
COPY migrations migrations
COPY plugins plugins
COPY src src
COPY templates templates

RUN install -d -o node -g node -m 0700 /data
USER node
VOLUME /data
EXPOSE 2222 6432 8443
ENV NODE_ENV=production
CMD ["node", "src/main.ts"]
