# One node of Sallyport. Mount its settings as /sallyport/sallyport.yaml, with `data: /data`, and give /data a
# volume: embedded store, keys and recordings live there, unless the settings name other places.
FROM node:24-bookworm AS build
WORKDIR /sallyport
COPY package.json package-lock.json ./
COPY tool/native.ts tool/native.ts
# The optional packages are Node itself, a PostgreSQL for tests and what builds native crypto: the image has the
# first, and needs the others no more when that is built.
RUN npm ci --omit=dev && npm prune --omit=dev --omit=optional --ignore-scripts

FROM node:24-bookworm-slim
WORKDIR /sallyport
COPY --from=build /sallyport/node_modules node_modules
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
